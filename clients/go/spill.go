package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
)

var errNoSpill = errors.New("there is no Config.SpillDir to keep them in")
var errSpillFull = errors.New("Config.SpillBytes are used up")

// spill keeps batches in files, a batch in each: the lines as they are sent. The name is a number
// that grows, and the count of events. A file appears whole, by a rename, and goes once the
// service has its events on disk.
type spill struct {
	dir  string // empty: keeps nothing
	most int64
	lock *os.File

	mu      sync.Mutex
	files   []spilled // oldest first; the one that is being sent is not among them
	sending spilled
	bytes   int64
	next    uint64
}

type spilled struct {
	name   string
	events int
	bytes  int64
}

func openSpill(dir string, most int64) (*spill, error) {
	s := &spill{dir: dir, most: most}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("ingest: cannot make Config.SpillDir: %w", err)
	}
	lock, err := lockDir(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("ingest: Config.SpillDir %s is used by another client: %w", dir, err)
	}
	s.lock = lock
	entries, err := os.ReadDir(dir)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("ingest: cannot read Config.SpillDir: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasSuffix(name, ".tmp") {
			// Its client ended while it wrote; the batch was not called spilled.
			_ = os.Remove(filepath.Join(dir, name))
			continue
		}
		var number uint64
		file := spilled{name: name}
		if n, err := fmt.Sscanf(name, "%016x-%d.ndjson", &number, &file.events); n != 2 || err != nil {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			continue
		}
		file.bytes = info.Size()
		s.files = append(s.files, file)
		s.bytes += file.bytes
		s.next = max(s.next, number+1)
	}
	sort.Slice(s.files, func(a, b int) bool { return s.files[a].name < s.files[b].name })
	return s, nil
}

// put keeps a batch; it is on disk when put returns without an error.
func (s *spill) put(b batch) error {
	if s.dir == "" {
		return errNoSpill
	}
	size := int64(len(b.lines))
	s.mu.Lock()
	if s.bytes+size > s.most {
		s.mu.Unlock()
		return errSpillFull
	}
	name := fmt.Sprintf("%016x-%d.ndjson", s.next, b.events)
	s.next++
	s.bytes += size
	s.mu.Unlock()
	err := s.write(name, b.lines)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.bytes -= size
		return err
	}
	s.files = append(s.files, spilled{name, b.events, size})
	return nil
}

func (s *spill) write(name string, lines []byte) error {
	path := filepath.Join(s.dir, name)
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(lines)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		_ = os.Remove(path + ".tmp")
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// take reads the oldest file. It returns no batch if there is none, and an error if it cannot be
// read.
func (s *spill) take() (batch, error) {
	s.mu.Lock()
	if len(s.files) == 0 {
		s.mu.Unlock()
		return batch{}, nil
	}
	s.sending, s.files = s.files[0], s.files[1:]
	file := s.sending
	s.mu.Unlock()
	lines, err := os.ReadFile(filepath.Join(s.dir, file.name))
	return batch{lines: lines, events: bytes.Count(lines, []byte{'\n'}), file: file.name}, err
}

// settled removes the file that was taken.
func (s *spill) settled() {
	s.mu.Lock()
	file := s.sending
	s.sending = spilled{}
	s.bytes -= file.bytes
	s.mu.Unlock()
	// A file that stays is sent again by the next client, and its events are recognised.
	_ = os.Remove(filepath.Join(s.dir, file.name))
}

// setAside renames the file that was taken and cannot be read; returns its events.
func (s *spill) setAside() int {
	s.mu.Lock()
	file := s.sending
	s.sending = spilled{}
	s.bytes -= file.bytes
	s.mu.Unlock()
	path := filepath.Join(s.dir, file.name)
	_ = os.Rename(path, path+".unreadable")
	return file.events
}

// putBack keeps the file that was taken.
func (s *spill) putBack() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sending.name != "" {
		s.files = append([]spilled{s.sending}, s.files...)
		s.sending = spilled{}
	}
}

func (s *spill) events() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	events := s.sending.events
	for _, file := range s.files {
		events += file.events
	}
	return events
}

func (s *spill) close() {
	if s.lock != nil {
		_ = s.lock.Close()
	}
}
