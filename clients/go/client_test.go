package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var background = context.Background()

func init() { longestPause = time.Second }

func TestEveryEventOfManyGoroutinesIsStoredOnce(t *testing.T) {
	service := start(t)
	client := client(t, service.config())
	var all sync.WaitGroup
	for worker := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			for n := range 1000 {
				if err := client.LogJSON(background, item(t, worker*1000+n)); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	all.Wait()
	closed(t, client)
	service.stored(8000)
	stats := client.Stats()
	if stats.Logged != 8000 || stats.Delivered != 8000 || stats.Waiting+stats.Spilled != 0 {
		t.Fatalf("%+v", stats)
	}
	if err := client.LogJSON(background, item(t, 0)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestRejectedEventsAreToldOneByOneAndKeepNothingBack(t *testing.T) {
	service := start(t)
	var told []Rejection
	config := service.config()
	config.OnReject = func(one Rejection) { told = append(told, one) }
	client := client(t, config)
	_ = client.Log(background, []byte(`no JSON`))
	// More than an answer lists in full.
	for n := range 300 {
		_ = client.Log(background, fmt.Appendf(nil, `{"event_type":"nonsense","item_id":"bad-%d"}`, n))
		_ = client.LogJSON(background, item(t, n))
	}
	_ = client.Log(background, []byte("{\n  \"event_type\": \"click\",\n  \"item_id\": \""+t.Name()+"/many lines\"\n}\n"))
	closed(t, client)
	service.stored(301)
	if len(told) != 301 || client.Stats().Rejected != 301 {
		t.Fatalf("%d told, %+v", len(told), client.Stats())
	}
	for n, one := range told[1:] {
		if !strings.Contains(string(one.Line), fmt.Sprintf(`"bad-%d"`, n)) || one.Code != "invalid_value" {
			t.Fatalf("%d: %s %+v", n, one.Line, one)
		}
	}
	if one := told[0]; string(one.Line) != "no JSON" || one.Code != "invalid_json" || one.Message == "" {
		t.Fatalf("%+v", one)
	}
}

func TestABodyThatIsTooLargeIsSplit(t *testing.T) {
	service := start(t)
	var told []Rejection
	config := service.config()
	// The service takes 8 MiB, and 256 KiB of one event.
	config.BatchBytes, config.MemoryBytes = 12<<20, 32<<20
	config.OnReject = func(one Rejection) { told = append(told, one) }
	client := client(t, config)
	long := strings.Repeat("x", 100_000)
	for n := range 100 {
		line := fmt.Sprintf(`{"event_type":"click","item_id":"%s/%d","meta":{"text":"%s"}}`, t.Name(), n, long)
		if err := client.Log(background, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	huge := fmt.Sprintf(`{"event_type":"click","item_id":"huge","meta":{"text":"%s"}}`, strings.Repeat(long, 90))
	if err := client.Log(background, []byte(huge)); err != nil {
		t.Fatal(err)
	}
	if err := client.Log(background, []byte(huge+strings.Repeat(" ", 1)+strings.Repeat(huge, 2))); !errors.Is(err, ErrTooLarge) {
		t.Fatal(err)
	}
	closed(t, client)
	service.stored(100)
	if len(told) != 1 || len(told[0].Line) < 9_000_000 || told[0].Code != "body_too_large" {
		t.Fatalf("%d told, %+v", len(told), client.Stats())
	}
}

// losing forwards to the service, and breaks off instead of the first answers.
func losing(t *testing.T, service *service, answers int) string {
	lost := 0
	return listen(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		forward := r.Clone(r.Context())
		forward.RequestURI, forward.URL.Scheme, forward.URL.Host = "", "http", service.address
		reply, err := http.DefaultTransport.RoundTrip(forward)
		if err == nil {
			defer reply.Body.Close()
		}
		if err != nil || lost < answers {
			lost++
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(reply.StatusCode)
		_, _ = io.Copy(w, reply.Body)
	})})
}

func TestABatchWhoseAnswerIsLostIsStoredOnce(t *testing.T) {
	service := start(t)
	config := service.config()
	config.URL = "http://" + losing(t, service, 2)
	client := client(t, config)
	for n, id := range []string{``, `"event_id":"order-7",`, `"event_id":"",`, `"event_id":null,"occurred_at":null,`,
		`"event_id":"order-8","occurred_at":null,`} {
		line := fmt.Sprintf(`{%s"event_type":"click","item_id":"%s/%d"}`, id, t.Name(), n)
		if err := client.Log(background, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, client)
	service.stored(5)
	if stats := client.Stats(); stats.Retries != 2 {
		t.Fatalf("%+v", stats)
	}
}

func TestAssignmentsGoToTheirEndpointAndAreStoredOnce(t *testing.T) {
	service := start(t)
	config := service.config()
	config.URL, config.Path = "http://"+losing(t, service, 2), Assignments
	client := client(t, config)
	for n, more := range []string{`"event_id":"a-7"`, `"ts":"` + time.Now().UTC().Format(time.RFC3339) + `"`, `"user_id":"u"`} {
		line := fmt.Sprintf(`{"experiment_id":"%s","variant":"B","request_id":"r%d",%s}`, t.Name(), n, more)
		if err := client.Log(background, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, client)
	if stats := client.Stats(); stats.Delivered != 3 || stats.Rejected != 0 {
		t.Fatalf("%+v", stats)
	}
	sql := fmt.Sprintf("SELECT count(*), count(DISTINCT request_id) FROM ingest_assignments WHERE experiment_id = '%s'", t.Name())
	got := ""
	for deadline := time.Now().Add(2 * time.Minute); got != "3|3"; time.Sleep(100 * time.Millisecond) {
		if got = service.query(sql); time.Now().After(deadline) {
			t.Fatal(got)
		}
	}
}

// The length of the outage is that of INGEST_OUTAGE, such as 10m; 3 s without it.
func TestAnOutageLosesNothingWithinTheBounds(t *testing.T) {
	service := start(t)
	config := service.config()
	config.SpillDir = t.TempDir()
	config.MemoryBytes, config.BatchBytes = 256<<10, 32<<10
	client := client(t, config)
	outage, err := time.ParseDuration(os.Getenv("INGEST_OUTAGE"))
	if err != nil {
		outage = 3 * time.Second
	}
	logged := 0
	log := func() {
		if err := client.LogJSON(background, item(t, logged)); err != nil {
			t.Fatalf("%d: %v", logged, err)
		}
		logged++
	}
	for range 100 {
		log()
	}
	service.stop()
	var took []time.Duration
	for end := time.Now().Add(outage); time.Now().Before(end); time.Sleep(200 * time.Microsecond) {
		began := time.Now()
		log()
		took = append(took, time.Since(began))
	}
	stats := client.Stats()
	if stats.Spilled == 0 || stats.Retries == 0 || stats.LastError == "" {
		t.Fatalf("%+v", stats)
	}
	slices.Sort(took)
	t.Logf("LogJSON while the service is away: %d calls, median %v, p99 %v, longest %v", len(took),
		took[len(took)/2], took[len(took)*99/100], took[len(took)-1])
	service.begin()
	service.stored(logged)
	closed(t, client)
	if stats := client.Stats(); stats.Spilled+stats.Waiting != 0 || stats.Lost+stats.Dropped != 0 {
		t.Fatalf("%+v", stats)
	}
}

func TestWhatAClientCouldNotSendIsSentByTheNextOne(t *testing.T) {
	service := start(t)
	config := service.config()
	config.SpillDir = t.TempDir()
	service.stop()
	first := client(t, config)
	if _, err := New(config); err == nil || !strings.Contains(err.Error(), "another client") {
		t.Fatal(err)
	}
	for n := range 1000 {
		_ = first.LogJSON(background, item(t, n))
	}
	short, cancel := context.WithTimeout(background, 300*time.Millisecond)
	defer cancel()
	if err := first.Close(short); err != nil {
		t.Fatal(err)
	}
	if stats := first.Stats(); stats.Spilled != 1000 || stats.Waiting != 0 {
		t.Fatalf("%+v", stats)
	}
	// A write that a crash cut off.
	if err := os.WriteFile(config.SpillDir+"/00000000000000ff-3.ndjson.tmp", []byte(`{"ev`), 0o600); err != nil {
		t.Fatal(err)
	}
	service.begin()
	second := client(t, config)
	service.stored(1000)
	closed(t, second)
	left, _ := os.ReadDir(config.SpillDir)
	if second.Stats().Delivered != 1000 || len(left) != 1 {
		t.Fatalf("%+v, %v", second.Stats(), left)
	}
}

func TestBoundsHoldAndWhatIsLostIsTold(t *testing.T) {
	service := start(t)
	config := service.config()
	service.stop()
	config.MemoryBytes, config.BatchBytes = 64<<10, 16<<10
	client := client(t, config)
	taken, refused := 0, 0
	for n := range 5000 {
		switch err := client.LogJSON(background, item(t, n)); {
		case err == nil:
			taken++
		case errors.Is(err, ErrFull):
			refused++
		default:
			t.Fatal(err)
		}
	}
	stats := client.Stats()
	if refused == 0 || stats.Waiting != taken || stats.Dropped != uint64(refused) {
		t.Fatalf("%d taken, %d refused, %+v", taken, refused, stats)
	}
	short, cancel := context.WithTimeout(background, 100*time.Millisecond)
	defer cancel()
	err := client.Close(short)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%d events are lost", taken)) {
		t.Fatal(err)
	}
}

func TestAWrongKeyIsToldAndKeepsTheEvents(t *testing.T) {
	service := start(t)
	config := service.config()
	config.Key = "wrong-key-of-this-test"
	config.SpillDir = t.TempDir()
	told := make(chan string, 1000)
	config.OnError = func(err error) { told <- err.Error() }
	wrong := client(t, config)
	for n := range 50 {
		_ = wrong.LogJSON(background, item(t, n))
	}
	if text := <-told; !strings.Contains(text, "401 invalid_api_key") {
		t.Error(text)
	}
	short, cancel := context.WithTimeout(background, 100*time.Millisecond)
	defer cancel()
	if err := wrong.Close(short); err != nil {
		t.Fatal(err)
	}
	config.Key = service.config().Key
	right := client(t, config)
	service.stored(50)
	closed(t, right)
}

func TestALimitDelaysEventsAndLosesNone(t *testing.T) {
	service := start(t)
	made := service.command("keys", "create", "demo", "--role", "ingest", "--json",
		"--events-per-second", "100", "--events-burst", "100")
	var key struct {
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal([]byte(made), &key); err != nil || key.Secret == "" {
		t.Fatalf("%v: %s", err, made)
	}
	config := service.config()
	config.Key, config.BatchBytes = key.Secret, 4<<10
	limited := client(t, config)
	for n := range 300 {
		_ = limited.LogJSON(background, item(t, n))
	}
	closed(t, limited)
	service.stored(300)
	if stats := limited.Stats(); stats.Retries == 0 || stats.Delivered != 300 {
		t.Fatalf("%+v", stats)
	}
}

func TestMistakesInTheConfigAreNamed(t *testing.T) {
	for want, config := range map[string]Config{
		"Config.URL":         {URL: "localhost:8080", Key: "k"},
		"Config.Key":         {URL: "http://localhost:8080"},
		"Config.Path":        {URL: "http://localhost:8080", Key: "k", Path: "/v1/other"},
		"Config.MemoryBytes": {URL: "http://localhost:8080", Key: "k", MemoryBytes: 10},
		"Config.SpillDir":    {URL: "http://localhost:8080", Key: "k", SpillDir: "/dev/null/x"},
	} {
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestAnAnswerOfAnotherServerDeliversNothing(t *testing.T) {
	listener := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<html>welcome</html>")
	})}
	address := listen(t, listener)
	client := client(t, Config{URL: "http://" + address, Key: "k"})
	_ = client.Log(background, []byte(`{"a":1}`))
	for deadline := time.Now().Add(time.Minute); client.Stats().Retries == 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", client.Stats())
		}
	}
	if stats := client.Stats(); stats.Delivered != 0 || !strings.Contains(stats.LastError, "Config.URL") {
		t.Fatalf("%+v", stats)
	}
}
