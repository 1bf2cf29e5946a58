package ingest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// service is `recsys-ingest dev`: the program with a PostgreSQL of its own.
type service struct {
	t       *testing.T
	program string
	dir     string
	address string
	run     *exec.Cmd
	env     map[string]string
}

var shared *service

// TestMain ends the program that the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		shared.stop()
		_ = os.RemoveAll(filepath.Dir(shared.dir))
	}
	os.Exit(code)
}

// start runs the program in RECSYS_INGEST_BIN on a free port, if it does not run yet.
func start(t *testing.T) *service {
	t.Helper()
	program := os.Getenv("RECSYS_INGEST_BIN")
	if program == "" {
		t.Skip("skipped: RECSYS_INGEST_BIN names no recsys-ingest to test with")
	}
	if shared == nil {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := listener.Addr().String()
		_ = listener.Close()
		// The path of a socket has to be short, so not t.TempDir.
		dir, err := os.MkdirTemp("", "ingest-go")
		if err != nil {
			t.Fatal(err)
		}
		// The server of `dev` may run as another user.
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		shared = &service{program: program, dir: filepath.Join(dir, "data"), address: address}
	}
	shared.t = t
	if shared.run == nil {
		shared.begin()
	}
	return shared
}

// begin starts the program again, on the same data, and waits until it is ready.
func (s *service) begin() {
	s.t.Helper()
	s.run = exec.Command(s.program, "dev", "--data-dir", s.dir, "--listen", s.address, "--log-level", "warn")
	s.run.Stderr = os.Stderr
	env := filepath.Join(s.dir, "dev.env")
	_ = os.Remove(env)
	if err := s.run.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		response, err := http.Get("http://" + s.address + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			_, err := os.Stat(env)
			if response.StatusCode == http.StatusOK && err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			s.t.Fatal("the service is not ready")
		}
	}
	file, err := os.Open(env)
	if err != nil {
		s.t.Fatal(err)
	}
	defer file.Close()
	s.env = map[string]string{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimPrefix(lines.Text(), "export ")
		if name, value, ok := strings.Cut(line, "="); ok {
			s.env[name] = strings.Trim(value, `'"`)
		}
	}
}

func (s *service) stop() {
	if s.run == nil {
		return
	}
	_ = s.run.Process.Signal(syscall.SIGTERM)
	_ = s.run.Wait()
	s.run = nil
}

// command runs a command of the program on its database.
func (s *service) command(arguments ...string) string {
	s.t.Helper()
	command := exec.Command(s.program, arguments...)
	command.Env = os.Environ()
	for name, value := range s.env {
		command.Env = append(command.Env, name+"="+value)
	}
	output, err := command.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%v: %v\n%s", arguments, err, output)
	}
	return string(output)
}

// query returns what psql prints for a statement.
func (s *service) query(sql string) string {
	s.t.Helper()
	output, err := exec.Command(s.env["INGEST_PSQL"], s.env["DATABASE_URL"], "-Atc", sql).CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", sql, err, output)
	}
	return strings.TrimSpace(string(output))
}

// stored waits until this many different items of the running test, and no row more, are in the
// table.
func (s *service) stored(events int) {
	s.t.Helper()
	want := fmt.Sprintf("%d|%d", events, events)
	sql := fmt.Sprintf("SELECT count(*), count(DISTINCT item_id) FROM interaction_events WHERE item_id ^@ '%s/'", s.t.Name())
	got := ""
	for deadline := time.Now().Add(2 * time.Minute); got != want; time.Sleep(100 * time.Millisecond) {
		got = s.query(sql)
		if time.Now().After(deadline) {
			s.t.Fatalf("rows and items are %s, not %s", got, want)
		}
	}
}

func (s *service) config() Config {
	return Config{URL: "http://" + s.address, Key: s.env["INGEST_API_KEY"], Path: Interactions}
}

func client(t *testing.T, config Config) *Client {
	t.Helper()
	client, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func closed(t *testing.T, client *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := client.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

type click struct {
	EventType string `json:"event_type"`
	ItemID    string `json:"item_id"`
	UserID    string `json:"user_id"`
}

func item(t *testing.T, n int) click { return click{"click", fmt.Sprintf("%s/%d", t.Name(), n), "u1"} }

// listen serves on a free port until the test ends.
func listen(t *testing.T, server *http.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return listener.Addr().String()
}
