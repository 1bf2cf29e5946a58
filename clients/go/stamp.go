package ingest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"time"
)

// stamp is what a line needs for its retries to be recognised: a text in place of line[at:to].
type stamp struct {
	at, to        int
	before, after string
	isTime        bool
}

const (
	idBytes   = 36
	eventTime = `"occurred_at":"`
	// An assignment has no other name for it.
	assignmentTime = `"ts":"`
	timeFormat     = "2006-01-02T15:04:05.000000Z"
)

// bytes is how much longer a line becomes.
func (s stamp) bytes() int {
	length := len(s.before) + len(s.after) + idBytes
	if s.isTime {
		length += len(timeFormat) - idBytes
	}
	return length - (s.to - s.at)
}

// stampOf finds what an event lacks: an event_id, or a time beside an id that tells none. What is no
// object, or an empty one, stays as it is: the service says what is wrong with it.
// timeHead is what a time begins with.
func stampOf(line []byte, timeHead string) (found stamp, needed bool) {
	if len(line) == 0 || line[0] != '{' {
		return stamp{}, false
	}
	// Where the values of event_id and of a time stand; nowhere if they have none.
	var id, when [2]int
	depth, members := 0, false
	for at := 0; at < len(line); at++ {
		switch line[at] {
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case '"':
			end, escaped := stringEnd(line, at)
			if depth == 1 {
				members = true
				if value, ok := valuePlace(line, end); ok {
					switch name := line[at:end]; {
					case isNamed(name, escaped, "event_id"):
						id = [2]int{value, scalarEnd(line, value)}
					case isNamed(name, escaped, "occurred_at", "timestamp", "ts"):
						when = [2]int{value, scalarEnd(line, value)}
					}
				}
			}
			at = end - 1
		}
	}
	switch {
	case !members:
		return stamp{}, false
	case id[0] == 0:
		return stamp{1, 1, `"event_id":"`, `",`, false}, true
	case isBlank(line[id[0]:id[1]]):
		return stamp{id[0], id[1], `"`, `"`, false}, true
	case tellsTime(line[id[0]:id[1]]):
		return stamp{}, false
	case when[0] == 0:
		return stamp{1, 1, timeHead, `",`, true}, true
	case string(line[when[0]:when[1]]) == "null":
		return stamp{when[0], when[1], `"`, `"`, true}, true
	}
	return stamp{}, false
}

// stringEnd returns the place after the text that begins at the quote, and whether it has escapes.
func stringEnd(line []byte, quote int) (end int, escaped bool) {
	for at := quote + 1; at < len(line); at++ {
		switch line[at] {
		case '\\':
			escaped = true
			at++
		case '"':
			return at + 1, escaped
		}
	}
	return len(line), escaped
}

// valuePlace returns where the value of a member begins, if the text that ends here is a name.
func valuePlace(line []byte, end int) (place int, isName bool) {
	end = afterSpace(line, end)
	if end == len(line) || line[end] != ':' {
		return 0, false
	}
	return afterSpace(line, end+1), true
}

func afterSpace(line []byte, at int) int {
	for at < len(line) && (line[at] == ' ' || line[at] == '\t') {
		at++
	}
	return at
}

// scalarEnd returns the place after a value that is no object or list.
func scalarEnd(line []byte, at int) int {
	if at < len(line) && line[at] == '"' {
		end, _ := stringEnd(line, at)
		return end
	}
	for at < len(line) && strings.IndexByte(" \t,}]", line[at]) < 0 {
		at++
	}
	return at
}

// isNamed reports whether a text is one of these names of members.
func isNamed(quoted []byte, escaped bool, names ...string) bool {
	text := quoted[1:]
	if !escaped {
		text = bytes.TrimSuffix(text, []byte{'"'})
	} else {
		var name string
		_ = json.Unmarshal(quoted, &name)
		text = []byte(name)
	}
	for _, name := range names {
		if string(text) == name {
			return true
		}
	}
	return false
}

// isBlank reports whether the service takes the id for absent.
func isBlank(value []byte) bool {
	if string(value) == "null" {
		return true
	}
	var id string
	return len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &id) == nil && strings.TrimSpace(id) == ""
}

// tellsTime reports whether an id is a UUIDv7 (RFC 9562), whose time is that of an event without one.
func tellsTime(quoted []byte) bool {
	return len(quoted) == idBytes+2 && quoted[15] == '7' && strings.IndexByte("89abAB", quoted[20]) >= 0
}

// appendStamped appends the line with what it lacks.
func appendStamped(into, line []byte, s stamp) []byte {
	into = append(into, line[:s.at]...)
	into = append(into, s.before...)
	if now := time.Now(); s.isTime {
		into = now.UTC().AppendFormat(into, timeFormat)
	} else {
		into = appendUUID(into, now)
	}
	into = append(into, s.after...)
	return append(into, line[s.to:]...)
}

// appendUUID appends a UUIDv7 (RFC 9562): milliseconds, then random bits.
func appendUUID(into []byte, now time.Time) []byte {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(now.UnixMilli())<<16|0x7000|rand.Uint64()&0x0fff)
	binary.BigEndian.PutUint64(id[8:], 1<<63|rand.Uint64()>>2)
	into = hex.AppendEncode(into, id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		into = append(into, '-')
		into = hex.AppendEncode(into, part)
	}
	return into
}
