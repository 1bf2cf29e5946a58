package ingest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	firstPause = 200 * time.Millisecond
	// An answer lists its first rejections in full and the rest by ranges, so it is small.
	answerBytes = 4 << 20
)

// longestPause bounds the growth of pauses, not what the service asks for. Tests shorten it.
var longestPause = 30 * time.Second

// send delivers batches, one at a time, until the client is closed and memory is empty, or the
// client gives up.
func (c *Client) send() {
	defer close(c.ended)
	flush := time.NewTimer(c.config.FlushEvery)
	defer flush.Stop()
	due, fileNext := false, false
	for c.life.Err() == nil {
		next, end := c.next(due, fileNext)
		due = false
		if next.events == 0 {
			if end {
				return
			}
			flush.Reset(c.config.FlushEvery)
			select {
			case <-c.wake:
			case <-flush.C:
				due = true
			case <-c.life.Done():
			}
			continue
		}
		fromFile := next.file != ""
		// Memory and files take turns, so that neither waits for the other to be empty.
		fileNext = !fromFile
		err := c.deliver(next.lines)
		c.mu.Lock()
		switch {
		case err != nil && fromFile:
			c.files.putBack()
		case err != nil:
			c.queue.putBack(next)
		case !fromFile:
			c.queue.settled(next)
		}
		c.queue.out = batch{}
		c.mu.Unlock()
		if err == nil && fromFile {
			c.files.settled()
		}
	}
}

// next takes a batch for sending; one without events if there is none now. The end is reached if
// none will come.
func (c *Client) next(due, fileFirst bool) (taken batch, end bool) {
	c.mu.Lock()
	if (due || c.closed) && len(c.queue.full) == 0 {
		c.queue.shut()
	}
	fromFile := !c.closed && (fileFirst || len(c.queue.full) == 0)
	c.mu.Unlock()
	if fromFile {
		// Reads without the lock: Log waits for no disk.
		if taken = c.fromFile(); taken.events > 0 {
			return taken, false
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	taken, _ = c.queue.take()
	c.queue.out = taken
	// What the mover holds may come back.
	return taken, c.closed && c.queue.moving.events == 0
}

// fromFile takes the oldest readable file.
func (c *Client) fromFile() batch {
	for {
		taken, err := c.files.take()
		if err == nil {
			return taken
		}
		lost := uint64(c.files.setAside())
		c.mu.Lock()
		c.stats.Lost += lost
		c.stats.LastError = fmt.Sprintf("a file of waiting events cannot be read, and was set aside: %v", err)
		c.mu.Unlock()
	}
}

// moveToFiles empties memory into files while the service is away, or slower than what comes.
func (c *Client) moveToFiles() {
	defer close(c.moved)
	if c.files.dir == "" {
		return
	}
	for {
		select {
		case <-c.move:
		case <-c.life.Done():
			return
		}
		for c.life.Err() == nil {
			c.mu.Lock()
			var taken batch
			if c.away || c.queue.bytes > c.config.MemoryBytes/2 {
				taken, _ = c.queue.take()
			}
			c.queue.moving = taken
			c.mu.Unlock()
			if taken.events == 0 {
				break
			}
			err := c.files.put(taken)
			c.mu.Lock()
			c.queue.moving = batch{}
			if err == nil {
				c.queue.settled(taken)
			} else {
				c.queue.putBack(taken)
				c.stats.LastError = fmt.Sprintf("waiting events cannot be moved to files: %v", err)
			}
			c.mu.Unlock()
			signal(c.wake)
			if err != nil {
				break
			}
		}
	}
}

// takeAll empties memory.
func (c *Client) takeAll() []batch {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue.shut()
	all := c.queue.full
	c.queue.full = nil
	for _, taken := range all {
		c.queue.bytes -= len(taken.lines)
	}
	return all
}

// deliver sends lines until each is on the service's disk or was rejected. The error is that of a
// client that gave up.
func (c *Client) deliver(lines []byte) error {
	body := compressed(lines)
	pause := firstPause
	for {
		reply, err := c.attempt(body)
		if err == nil {
			c.settled(lines, reply)
			return nil
		}
		var failed *failure
		if errors.As(err, &failed) && failed.unusable {
			return c.split(lines, failed)
		}
		if c.life.Err() != nil {
			return c.life.Err()
		}
		c.failed(err)
		wait := rand.N(pause)
		if failed != nil {
			// Jitter on top: clients that were sent away together do not come back together.
			wait += failed.retryAfter
		}
		pause = min(2*pause, longestPause)
		select {
		case <-time.After(wait):
		case <-c.life.Done():
			return c.life.Err()
		}
	}
}

// split sends the halves of a body that the service cannot take as a whole. A single event is
// rejected.
func (c *Client) split(lines []byte, failed *failure) error {
	events := bytes.Count(lines, []byte{'\n'})
	if events <= 1 {
		c.reject(Rejection{Line: bytes.TrimSuffix(lines, []byte{'\n'}), Code: failed.code, Message: failed.detail})
		return nil
	}
	middle := 0
	for range events / 2 {
		middle += bytes.IndexByte(lines[middle:], '\n') + 1
	}
	if err := c.deliver(lines[:middle]); err != nil {
		return err
	}
	return c.deliver(lines[middle:])
}

func compressed(lines []byte) []byte {
	var body bytes.Buffer
	writer, err := gzip.NewWriterLevel(&body, gzip.BestSpeed)
	if err == nil {
		_, err = writer.Write(lines)
		err = errors.Join(err, writer.Close())
	}
	if err != nil {
		// A buffer takes every byte, and the level exists.
		panic(err)
	}
	return body.Bytes()
}

// answer is what the service says of a body: its verdicts, or a problem (RFC 9457).
type answer struct {
	Ack      string `json:"ack"`
	Accepted uint64 `json:"accepted"`
	Rejected []struct {
		Index   int    `json:"index"`
		Code    string `json:"code"`
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"rejected"`
	RejectedMore []struct {
		Code   string `json:"code"`
		Events string `json:"events"`
	} `json:"rejected_more"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// failure is an answer that leaves the events undelivered.
type failure struct {
	status     int
	code       string
	detail     string
	retryAfter time.Duration
	unusable   bool // as a whole, however often it is sent
}

func (f *failure) Error() string {
	return fmt.Sprintf("the service answered %d %s: %s", f.status, f.code, f.detail)
}

// attempt posts a body once.
func (c *Client) attempt(body []byte) (answer, error) {
	var reply answer
	request, err := http.NewRequestWithContext(c.life, http.MethodPost, c.target, bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	request.Header.Set("X-API-Key", c.config.Key)
	request.Header.Set("Content-Type", "application/x-ndjson")
	request.Header.Set("Content-Encoding", "gzip")
	request.Header.Set("User-Agent", "recsys-ingest-go")
	response, err := c.config.HTTPClient.Do(request)
	if err != nil {
		return reply, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, answerBytes))
	if err != nil {
		return reply, fmt.Errorf("the answer %d broke off: %w", response.StatusCode, err)
	}
	readable := json.Unmarshal(text, &reply) == nil
	switch {
	case readable && response.StatusCode/100 == 2 && (reply.Ack == "durable" || reply.Ack == "committed"):
		return reply, nil
	case readable && response.StatusCode == http.StatusUnprocessableEntity && len(reply.Rejected) > 0:
		return reply, nil
	case !readable || reply.Code == "" && reply.Ack == "":
		// A proxy, or another server: it says nothing of the events.
		reply.Code, reply.Detail = "", "the answer is not recsys-ingest's; is Config.URL right?"
	}
	return reply, &failure{
		status:     response.StatusCode,
		code:       reply.Code,
		detail:     reply.Detail,
		retryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
		unusable: reply.Code != "" && (response.StatusCode == http.StatusBadRequest ||
			response.StatusCode == http.StatusRequestEntityTooLarge),
	}
}

// retryAfter reads the header: seconds, or a date (RFC 9110 §10.2.3).
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds > 0 {
		return min(time.Duration(seconds)*time.Second, time.Hour)
	}
	if date, err := http.ParseTime(value); err == nil && date.After(now) {
		return min(date.Sub(now), time.Hour)
	}
	return 0
}

// settled takes over what an answer says of each event.
func (c *Client) settled(lines []byte, reply answer) {
	c.mu.Lock()
	c.away = false
	c.stats.Delivered += reply.Accepted
	c.stats.LastError = ""
	c.mu.Unlock()
	if len(reply.Rejected) == 0 && len(reply.RejectedMore) == 0 {
		return
	}
	all := bytes.Split(bytes.TrimSuffix(lines, []byte{'\n'}), []byte{'\n'})
	rejections := map[int]Rejection{}
	for _, more := range reply.RejectedMore {
		for _, index := range places(more.Events, len(all)) {
			rejections[index] = Rejection{Code: more.Code}
		}
	}
	for _, one := range reply.Rejected {
		rejections[one.Index] = Rejection{Code: one.Code, Field: one.Field, Message: one.Message}
	}
	for index, line := range all {
		if rejection, ok := rejections[index]; ok {
			rejection.Line = line
			c.reject(rejection)
		}
	}
}

// places lists what a text such as "3,5-7" names, below the limit.
func places(text string, limit int) []int {
	var all []int
	for _, part := range strings.Split(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		if err != nil {
			continue
		}
		to := from
		if isRange {
			if to, err = strconv.Atoi(last); err != nil {
				continue
			}
		}
		for index := from; index <= to && index < limit; index++ {
			all = append(all, index)
		}
	}
	return all
}

func (c *Client) reject(rejection Rejection) {
	c.mu.Lock()
	c.stats.Rejected++
	c.mu.Unlock()
	if c.config.OnReject != nil {
		rejection.Line = bytes.Clone(rejection.Line)
		c.config.OnReject(rejection)
	}
}

// failed records an attempt after which the events are sent again.
func (c *Client) failed(err error) {
	c.mu.Lock()
	c.away = true
	c.stats.Retries++
	c.stats.LastError = err.Error()
	c.mu.Unlock()
	signal(c.move)
	if c.config.OnError != nil && !errors.Is(err, context.Canceled) {
		c.config.OnError(err)
	}
}
