package ingest

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"
)

func TestALineWithoutAnEventIDGetsOne(t *testing.T) {
	cases := []struct {
		line    string
		stamped bool
	}{
		{`{"a":1}`, true},
		{`{"event_id":"x"}`, false},
		{`{ "a" : [1,{"b":"}"}] , "event_id" : "x" }`, false},
		{`{"event\u005fid":"x"}`, false},
		{`{"a":{"event_id":"x"}}`, true},
		{`{"a":"event_id"}`, true},
		{`{"a":"\"event_id\":1"}`, true},
		{`{"event_id\\":"x"}`, true},
		{`{}`, false},
		{`[1]`, false},
		{`nonsense`, false},
		{`{"a`, true},
	}
	for _, one := range cases {
		line := []byte(one.line)
		place, stamped := stampPlace(line)
		if stamped != one.stamped {
			t.Errorf("%s: stamped %v", line, stamped)
		}
		if !stamped || !json.Valid(line) {
			continue
		}
		with := appendStamped(nil, line, place)
		if len(with) != len(line)+stampBytes {
			t.Errorf("%s: %d bytes more, not %d", with, len(with)-len(line), stampBytes)
		}
		var before, after map[string]any
		if err := json.Unmarshal(with, &after); err != nil {
			t.Fatalf("%s: %v", with, err)
		}
		_ = json.Unmarshal(line, &before)
		if after["event_id"] == nil || len(after) != len(before)+1 {
			t.Errorf("%s became %s", line, with)
		}
	}
}

func TestAnEventIDIsAUUIDOfVersion7WithItsTime(t *testing.T) {
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	// The time of the example in RFC 9562, appendix A.6.
	at := time.UnixMilli(0x017F22E279B0)
	seen := map[string]bool{}
	for range 1000 {
		id := string(appendUUID(nil, at))
		if !form.MatchString(id) || id[:13] != "017f22e2-79b0" || seen[id] {
			t.Fatal(id)
		}
		seen[id] = true
	}
}

func TestPlacesAreReadAsTheServiceWritesThem(t *testing.T) {
	got, _ := json.Marshal(places("1,3-5,9-20", 12))
	if string(got) != "[1,3,4,5,9,10,11]" {
		t.Fatal(string(got))
	}
}

func TestRetryAfterIsSecondsOrADate(t *testing.T) {
	now := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-1": 0, "soon": 0, "9999999": time.Hour,
		"Wed, 20 May 2026 12:00:07 GMT": 7 * time.Second, "Wed, 20 May 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}
