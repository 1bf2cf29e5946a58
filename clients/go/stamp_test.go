package ingest

import (
	"encoding/json"
	"regexp"
	"testing"
	"time"
)

func TestALineGetsTheIDAndTheTimeThatItLacks(t *testing.T) {
	const v4, v7 = `"6f9619ff-8b86-4011-b42d-00c04fc964ff"`, `"01a21927-90b9-74e0-b680-c09b7e0e550e"`
	cases := []struct {
		line string
		gets string
	}{
		{`{"a":1}`, "event_id"},
		{`{"event_id":` + v7 + `}`, ""},
		{`{"event_id":"x","occurred_at":"2026-05-24T10:00:00Z"}`, ""},
		{`{"event_id":"x","timestamp" : "2026-05-24T10:00:00Z"}`, ""},
		{`{"ts":"2026-05-24T10:00:00Z","event_id":"x"}`, ""},
		{`{"event_id":"x"}`, "occurred_at"},
		{`{"event_id":` + v4 + `,"occurred_at":null}`, "occurred_at"},
		{`{"event_id":"x","meta":{"ts":1}}`, "occurred_at"},
		{`{"event_id":"","occurred_at":"2026-05-24T10:00:00Z"}`, "event_id"},
		{`{"event_id": null }`, "event_id"},
		{`{"a":"b","event_id":" \t "}`, "event_id"},
		{`{"event_id":5,"ts":1}`, ""},
		{`{ "a" : [1,{"b":"}"}] , "event_id" : "x" , "ts":1}`, ""},
		{`{"event\u005fid":"x","ts":1}`, ""},
		{`{"a":{"event_id":"x"}}`, "event_id"},
		{`{"a":"event_id"}`, "event_id"},
		{`{"a":"\"event_id\":1"}`, "event_id"},
		{`{"event_id\\":"x"}`, "event_id"},
		{`{}`, ""},
		{`[1]`, ""},
		{`nonsense`, ""},
		{`{"a`, "event_id"},
		{`{"event_id":`, ""},
		{`{"event_id":"`, ""},
	}
	for _, one := range cases {
		line := []byte(one.line)
		missing, stamped := stampOf(line, eventTime)
		gets := ""
		if stamped {
			gets = map[bool]string{false: "event_id", true: "occurred_at"}[missing.isTime]
		}
		if gets != one.gets && json.Valid(line) {
			t.Errorf("%s: gets %q", line, gets)
		}
		if !stamped {
			continue
		}
		with := appendStamped(nil, line, missing)
		if len(with) != len(line)+missing.bytes() {
			t.Errorf("%s: %d bytes more, not %d", with, len(with)-len(line), missing.bytes())
		}
		if !json.Valid(line) {
			continue
		}
		var before, after map[string]any
		if err := json.Unmarshal(with, &after); err != nil {
			t.Fatalf("%s: %v", with, err)
		}
		_ = json.Unmarshal(line, &before)
		if text, ok := after[gets].(string); !ok || len(text) < 20 {
			t.Errorf("%s became %s", line, with)
		}
		before[gets] = after[gets]
		if len(after) != len(before) {
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
