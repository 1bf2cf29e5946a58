// Package ingest sends events to recsys-ingest without making its caller wait.
//
// [Client.Log] copies a line into memory and returns. Lines go out in compressed batches, are
// sent again until the service has them on its disk, and move to files while it is away. A line
// without an event_id gets one when it is logged, and one whose id tells no time gets its time, so a
// batch that is sent twice is stored once.
//
//	client, err := ingest.New(ingest.Config{URL: "http://127.0.0.1:8080", Key: key, SpillDir: dir})
//	…
//	defer client.Close(ctx)
//	client.LogJSON(ctx, exposure)
package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Endpoints of the service.
const (
	Exposures    = "/v1/exposures"
	Interactions = "/v1/interactions"
	Assignments  = "/v1/assignments"
)

var (
	// ErrFull means that memory, and the files if there are any, hold as much as they may. The
	// event was not taken.
	ErrFull = errors.New("ingest: the queue is full, so the event was dropped")
	// ErrClosed means that the client was closed. The event was not taken.
	ErrClosed = errors.New("ingest: the client is closed, so the event was dropped")
	// ErrTooLarge means that one event is larger than a batch may be. The event was not taken.
	ErrTooLarge = errors.New("ingest: the event is larger than Config.BatchBytes, so it was dropped")
)

// Config says where events go and how much may wait. Only URL and Key are required.
type Config struct {
	// URL of the service, such as http://ingest.internal:8080.
	URL string
	// Key is an API key that may post to Path.
	Key string
	// Path is the endpoint: Exposures (the default), Interactions or Assignments.
	Path string

	// MemoryBytes bounds the lines that wait in memory; 16 MiB if zero.
	MemoryBytes int
	// BatchBytes bounds the lines of one request, uncompressed; 256 KiB if zero. The service
	// takes 8 MiB by default.
	BatchBytes int
	// FlushEvery is how long a line waits for others; 200 ms if zero.
	FlushEvery time.Duration

	// SpillDir is a directory for what memory should not hold: lines move there while the service
	// is away, and when the client closes before they were delivered. The next client with the
	// same directory sends them. Without it, lines wait in memory alone. One client uses it at a
	// time.
	SpillDir string
	// SpillBytes bounds the files in SpillDir; 1 GiB if zero.
	SpillBytes int64

	// OnReject is told of each event that the service refuses for good. It is called from the
	// client's own goroutine, which sends nothing until it returns.
	OnReject func(Rejection)
	// OnError is told of each failed attempt; the events are kept and sent again. It is called
	// like OnReject.
	OnError func(error)

	// HTTPClient sends the requests; one with a timeout of 30 s if nil.
	HTTPClient *http.Client
}

// Rejection is an event that the service will never take.
type Rejection struct {
	// Line is the event as it was sent.
	Line []byte
	// Code says why, for programs: see /problems of the service.
	Code string
	// Field is the field at fault, if it is one.
	Field string
	// Message says why, for people.
	Message string
}

// Stats counts events since the client was made.
type Stats struct {
	// Logged events were taken by Log.
	Logged uint64
	// Delivered events are on the service's disk.
	Delivered uint64
	// Rejected events were refused by the service for good.
	Rejected uint64
	// Dropped events were not taken: Log returned an error.
	Dropped uint64
	// Lost events were taken and are gone: the client closed with nowhere to put them, or their
	// file could not be read.
	Lost uint64
	// Waiting events are in memory.
	Waiting int
	// Spilled events are in files, those of earlier clients included.
	Spilled int
	// Retries counts failed attempts to send a batch.
	Retries uint64
	// LastError is the latest reason for one; empty once a batch was delivered.
	LastError string
}

// Client sends events. Its methods may be called from any goroutine.
type Client struct {
	config Config
	target string
	// timeHead is what the time of an event without one begins with.
	timeHead string
	files    *spill

	wake   chan struct{} // the sender has something to look at
	move   chan struct{} // the mover has something to look at
	ended  chan struct{} // the sender has ended
	moved  chan struct{} // the mover has ended
	life   context.Context
	giveUp context.CancelFunc

	mu     sync.Mutex
	queue  queue
	closed bool
	away   bool
	stats  Stats
}

// New makes a client. It sends what an earlier client left in Config.SpillDir. The service need
// not run yet.
func New(config Config) (*Client, error) {
	base, err := url.Parse(config.URL)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, fmt.Errorf("ingest: Config.URL %q is not like http://host:8080", config.URL)
	}
	if config.Key == "" || strings.ContainsFunc(config.Key, func(r rune) bool { return r < ' ' }) {
		return nil, errors.New("ingest: Config.Key is empty or holds a control character")
	}
	if config.Path == "" {
		config.Path = Exposures
	}
	if config.Path != Exposures && config.Path != Interactions && config.Path != Assignments {
		return nil, fmt.Errorf("ingest: Config.Path %q is none of %s, %s and %s", config.Path, Exposures, Interactions, Assignments)
	}
	for value, standard := range map[*int]int{&config.MemoryBytes: 16 << 20, &config.BatchBytes: 256 << 10} {
		if *value <= 0 {
			*value = standard
		}
	}
	if config.MemoryBytes < config.BatchBytes {
		return nil, errors.New("ingest: Config.MemoryBytes holds not even one batch of Config.BatchBytes")
	}
	if config.FlushEvery <= 0 {
		config.FlushEvery = 200 * time.Millisecond
	}
	if config.SpillBytes <= 0 {
		config.SpillBytes = 1 << 30
	}
	if config.HTTPClient == nil {
		config.HTTPClient = &http.Client{Timeout: 30 * time.Second}
	}
	files, err := openSpill(config.SpillDir, config.SpillBytes)
	if err != nil {
		return nil, err
	}
	life, giveUp := context.WithCancel(context.Background())
	client := &Client{
		config:   config,
		target:   base.JoinPath(config.Path).String() + "?ack=durable",
		timeHead: eventTime,
		files:    files,
		wake:     make(chan struct{}, 1),
		move:     make(chan struct{}, 1),
		ended:    make(chan struct{}),
		moved:    make(chan struct{}),
		life:     life,
		giveUp:   giveUp,
	}
	if config.Path == Assignments {
		client.timeHead = assignmentTime
	}
	client.queue.batchBytes = config.BatchBytes
	go client.send()
	go client.moveToFiles()
	signal(client.wake)
	return client, nil
}

// Log takes one event, a JSON object, and returns without waiting for anything. The line may be
// reused afterwards. The context is not used to cancel: what was shown was shown, however the
// request ended.
func (c *Client) Log(_ context.Context, line []byte) error {
	line = bytes.TrimSpace(line)
	if bytes.ContainsAny(line, "\r\n") {
		// A line break inside would make two lines of it.
		var compact bytes.Buffer
		if err := json.Compact(&compact, line); err != nil {
			return c.dropped(fmt.Errorf("ingest: the event is no JSON: %w", err))
		}
		line = compact.Bytes()
	}
	if len(line) == 0 {
		return c.dropped(errors.New("ingest: the event is empty"))
	}
	missing, stamped := stampOf(line, c.timeHead)
	size := len(line) + 1
	if stamped {
		size += missing.bytes()
	}
	if size > c.config.BatchBytes {
		return c.dropped(ErrTooLarge)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		c.stats.Dropped++
		return ErrClosed
	}
	if c.queue.bytes+size > c.config.MemoryBytes {
		c.stats.Dropped++
		return ErrFull
	}
	into := c.queue.room(size)
	if stamped {
		into = appendStamped(into, line, missing)
	} else {
		into = append(into, line...)
	}
	c.queue.put(append(into, '\n'), size)
	c.stats.Logged++
	if len(c.queue.full) > 0 {
		signal(c.wake)
		if c.away || c.queue.bytes > c.config.MemoryBytes/2 {
			signal(c.move)
		}
	}
	return nil
}

// LogJSON takes one event as [Client.Log] does, after encoding it with encoding/json.
func (c *Client) LogJSON(ctx context.Context, event any) error {
	line, err := json.Marshal(event)
	if err != nil {
		return c.dropped(fmt.Errorf("ingest: the event cannot be encoded: %w", err))
	}
	return c.Log(ctx, line)
}

// Stats counts events.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Waiting = c.queue.events()
	stats.Spilled = c.files.events()
	return stats
}

// Close sends what waits in memory, until the context ends. What is left then moves to
// Config.SpillDir. Returns an error if taken events are lost: there is no such directory, or it is
// full. What is in files stays there for the next client. Only the first call does something.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	signal(c.wake)
	signal(c.move)
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.giveUp()
		<-c.ended
	}
	c.giveUp()
	<-c.moved
	left := c.takeAll()
	var lost uint64
	var reason error
	for _, batch := range left {
		if err := c.files.put(batch); err != nil {
			lost, reason = lost+uint64(batch.events), err
		}
	}
	c.files.close()
	c.mu.Lock()
	c.stats.Lost += lost
	c.mu.Unlock()
	if lost > 0 {
		return fmt.Errorf("ingest: %d events are lost: %w", lost, reason)
	}
	return nil
}

func (c *Client) dropped(err error) error {
	c.mu.Lock()
	c.stats.Dropped++
	c.mu.Unlock()
	return err
}

// signal wakes whoever reads the channel, now or when it looks next.
func signal(channel chan struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
