package ingest

// batch is what one request carries: lines, each with its line feed.
type batch struct {
	lines  []byte
	events int
	file   string // where it is kept; empty in memory
}

// queue holds the batches in memory, in the order of their first lines. Bytes and events count
// what is out for sending as well, until it is settled.
type queue struct {
	batchBytes int
	open       batch   // takes lines
	full       []batch // takes none
	out        batch   // being sent
	moving     batch   // being written to a file
	bytes      int
	spare      [][]byte
}

// room returns the lines of the batch that takes size more bytes, to append to.
func (q *queue) room(size int) []byte {
	if len(q.open.lines)+size > q.batchBytes {
		q.shut()
	}
	if q.open.lines == nil {
		if last := len(q.spare) - 1; last >= 0 {
			q.open.lines, q.spare = q.spare[last][:0], q.spare[:last]
		} else {
			// Grows to the size of a batch, so that an idle client keeps little.
			q.open.lines = make([]byte, 0, min(q.batchBytes, 16<<10))
		}
	}
	return q.open.lines
}

// put records that a line of size bytes was appended.
func (q *queue) put(lines []byte, size int) {
	q.open.lines = lines
	q.open.events++
	q.bytes += size
}

// shut lets the open batch take no more lines.
func (q *queue) shut() {
	if q.open.events > 0 {
		q.full = append(q.full, q.open)
		q.open = batch{}
	}
}

// take removes the oldest full batch.
func (q *queue) take() (batch, bool) {
	if len(q.full) == 0 {
		return batch{}, false
	}
	first := q.full[0]
	q.full[0] = batch{}
	q.full = q.full[1:]
	return first, true
}

// settled forgets bytes that a taken batch had, and keeps its memory for the next one.
func (q *queue) settled(done batch) {
	q.bytes -= len(done.lines)
	if len(q.spare) < 2 {
		q.spare = append(q.spare, done.lines)
	}
}

// putBack returns a taken batch.
func (q *queue) putBack(taken batch) {
	q.full = append([]batch{taken}, q.full...)
}

func (q *queue) events() int {
	events := q.open.events + q.out.events + q.moving.events
	for _, waiting := range q.full {
		events += waiting.events
	}
	return events
}
