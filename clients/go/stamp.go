package ingest

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"time"
)

const (
	stampHead  = `"event_id":"`
	stampTail  = `",`
	stampBytes = len(stampHead) + 36 + len(stampTail)
)

// stampPlace finds where an event_id goes: after the opening brace of an object that has none.
// What is no object, or an empty one, stays as it is: the service says what is wrong with it.
func stampPlace(line []byte) (place int, stamped bool) {
	if len(line) == 0 || line[0] != '{' {
		return 0, false
	}
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
				if isName(line, end) && isEventID(line[at:end], escaped) {
					return 0, false
				}
			}
			at = end - 1
		}
	}
	return 1, members
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

// isName reports whether the text that ends here is the name of a member.
func isName(line []byte, end int) bool {
	for ; end < len(line); end++ {
		switch line[end] {
		case ' ', '\t':
		case ':':
			return true
		default:
			return false
		}
	}
	return false
}

func isEventID(quoted []byte, escaped bool) bool {
	if !escaped {
		return string(quoted) == `"event_id"`
	}
	var name string
	return json.Unmarshal(quoted, &name) == nil && name == "event_id"
}

// appendStamped appends the line with a new event_id at the place.
func appendStamped(into, line []byte, place int) []byte {
	into = append(into, line[:place]...)
	into = append(into, stampHead...)
	into = appendUUID(into, time.Now())
	into = append(into, stampTail...)
	return append(into, line[place:]...)
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
