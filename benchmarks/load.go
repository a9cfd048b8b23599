// The load generator: keep-alive connections that each send a request, wait for the whole answer, and send the next.
//
// It reads one JSON document (see spec) from standard input and writes one (see report) to standard output. It speaks
// just enough HTTP/1.1 over a raw socket to be several times faster than the fastest server measured with it: requests
// are rendered before the clock starts, and an answer is only searched for its status and its end.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type spec struct {
	Address     string            `json:"address"`
	Connections int               `json:"connections"`
	Warmup      float64           `json:"warmup"`   // seconds that are not counted
	Seconds     float64           `json:"seconds"`  // then run for so long;
	Requests    int               `json:"requests"` // if given, send no more than so many requests (and no warm-up)
	Method      string            `json:"method"`
	Paths       []string          `json:"paths"` // taken in turn
	Headers     map[string]string `json:"headers"`
	Body        string            `json:"body"` // every "{n}" becomes a number that no other request has
}

type report struct {
	Requests     int     `json:"requests"`
	PerSecond    float64 `json:"per_second"`
	P50          float64 `json:"p50_ms"`
	P99          float64 `json:"p99_ms"`
	Max          float64 `json:"max_ms"`
	Bytes        int     `json:"bytes"` // the mean size of an answer's body
	Failed       int     `json:"failed"`
	FirstFailure string  `json:"first_failure"`
	CPU          float64 `json:"cpu_seconds"` // what this program used itself
	Elapsed      float64 `json:"elapsed_seconds"`
}

// A connection's own figures, so that connections share nothing but the counter while the clock runs.
type tally struct {
	latencies []time.Duration
	counted   float64 // requests in the window
	bytes     int
	failed    int
	failure   string
}

type run struct {
	spec    spec
	heads   [][]byte // everything before the Content-Length
	body    [][]byte // the pieces around the counter
	counter atomic.Int64
	started time.Time
}

func main() {
	var s spec
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		fail("the specification is not valid: " + err.Error())
	}
	if len(s.Paths) == 0 || s.Connections < 1 || s.Seconds <= 0 {
		fail("at least one path, one connection and some time are needed")
	}
	r := prepare(s)
	tallies := make([]tally, s.Connections)
	var group sync.WaitGroup
	before := cpu()
	r.started = time.Now()
	for i := range tallies {
		group.Go(func() { r.connection(&tallies[i]) })
	}
	group.Wait()
	elapsed := time.Since(r.started)
	window := seconds(s.Seconds)
	if s.Requests > 0 {
		window = elapsed
	}
	result := summarize(tallies, window)
	result.Elapsed = elapsed.Seconds()
	result.CPU = cpu() - before
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}

func prepare(s spec) *run {
	var headers bytes.Buffer
	fmt.Fprintf(&headers, "Host: %s\r\n", s.Address)
	for name, value := range s.Headers {
		fmt.Fprintf(&headers, "%s: %s\r\n", name, value)
	}
	r := &run{spec: s}
	if s.Body != "" {
		r.body = bytes.Split([]byte(s.Body), []byte("{n}"))
	}
	for _, path := range s.Paths {
		head := append([]byte(s.Method+" "+path+" HTTP/1.1\r\n"), headers.Bytes()...)
		if s.Body == "" {
			head = append(head, "\r\n"...)
		}
		r.heads = append(r.heads, head)
	}
	return r
}

// The next request's bytes, or nil when there are none left to send.
func (r *run) next(buffer []byte) []byte {
	n := r.counter.Add(1) - 1
	if r.spec.Requests > 0 && n >= int64(r.spec.Requests) {
		return nil
	}
	buffer = append(buffer[:0], r.heads[n%int64(len(r.heads))]...)
	if r.body == nil {
		return buffer
	}
	number := strconv.AppendInt(nil, n, 10)
	length := len(number) * (len(r.body) - 1)
	for _, piece := range r.body {
		length += len(piece)
	}
	buffer = append(buffer, "Content-Length: "...)
	buffer = append(strconv.AppendInt(buffer, int64(length), 10), "\r\n\r\n"...)
	for i, piece := range r.body {
		if i > 0 {
			buffer = append(buffer, number...)
		}
		buffer = append(buffer, piece...)
	}
	return buffer
}

// A request that the window (from the end of the warm-up to the deadline) cuts in two counts by the part inside, so
// that slow requests (bulk) are measured as fairly as fast ones. Latencies are of the requests that ended after the warm-up.
func (r *run) connection(t *tally) {
	warm := r.started.Add(seconds(r.spec.Warmup))
	deadline := warm.Add(seconds(r.spec.Seconds))
	exact := r.spec.Requests > 0
	var conn net.Conn
	var reader *bufio.Reader
	var buffer []byte
	for now := time.Now(); now.Before(deadline); {
		if buffer = r.next(buffer); buffer == nil {
			break
		}
		if conn == nil {
			var err error
			if conn, err = net.DialTimeout("tcp", r.spec.Address, 5*time.Second); err != nil {
				fail("cannot connect to " + r.spec.Address + ": " + err.Error())
			}
			reader = bufio.NewReaderSize(conn, 1<<16)
		}
		sent := time.Now()
		size, problem, closed := exchange(conn, reader, buffer)
		now = time.Now()
		if closed {
			conn.Close()
			conn = nil
		}
		if problem != "" {
			t.failed++
			if t.failure == "" {
				t.failure = problem
			}
		}
		if now.Before(warm) {
			continue
		}
		t.latencies = append(t.latencies, now.Sub(sent))
		t.bytes += size
		if exact {
			t.counted++
		} else {
			from, to := max(0, warm.Sub(sent)), max(0, now.Sub(deadline))
			t.counted += 1 - float64(from+to)/float64(now.Sub(sent))
		}
	}
	if conn != nil {
		conn.Close()
	}
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}

func exchange(conn net.Conn, reader *bufio.Reader, request []byte) (size int, problem string, closed bool) {
	if _, err := conn.Write(request); err != nil {
		return 0, err.Error(), true
	}
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return 0, err.Error(), true
	}
	if len(line) < 12 {
		return 0, "not an HTTP answer: " + string(line), true
	}
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return 0, "not an HTTP answer: " + string(line), true
	}
	length, chunked := 0, false
	for {
		if line, err = reader.ReadSlice('\n'); err != nil {
			return 0, err.Error(), true
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("content-length")):
			length, _ = strconv.Atoi(string(value))
		case bytes.EqualFold(name, []byte("transfer-encoding")):
			chunked = bytes.EqualFold(value, []byte("chunked"))
		case bytes.EqualFold(name, []byte("connection")):
			closed = bytes.EqualFold(value, []byte("close"))
		}
	}
	var kept bytes.Buffer
	into := io.Discard
	if status < 200 || status > 299 {
		into = &kept
	}
	if chunked {
		size, err = copyChunks(into, reader)
	} else {
		size, err = length, copyExactly(into, reader, length)
	}
	if err != nil {
		return size, err.Error(), true
	}
	if into == &kept {
		problem = fmt.Sprintf("HTTP %d: %.400s", status, kept.String())
	}
	return size, problem, closed
}

func copyExactly(into io.Writer, reader *bufio.Reader, length int) error {
	if into == io.Discard {
		_, err := reader.Discard(length)
		return err
	}
	_, err := io.CopyN(into, reader, int64(length))
	return err
}

func copyChunks(into io.Writer, reader *bufio.Reader) (size int, err error) {
	for {
		line, err := reader.ReadSlice('\n')
		if err != nil {
			return size, err
		}
		digits, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(";"))
		length, err := strconv.ParseInt(string(digits), 16, 64)
		if err != nil {
			return size, err
		}
		if err := copyExactly(into, reader, int(length)); err != nil {
			return size, err
		}
		if _, err := reader.Discard(2); err != nil {
			return size, err
		}
		size += int(length)
		if length == 0 {
			return size, nil
		}
	}
}

func summarize(tallies []tally, window time.Duration) report {
	var out report
	var all []time.Duration
	total, counted := 0, 0.0
	for _, t := range tallies {
		all = append(all, t.latencies...)
		total += t.bytes
		out.Failed += t.failed
		if out.FirstFailure == "" {
			out.FirstFailure = t.failure
		}
		counted += t.counted
	}
	out.PerSecond = counted / window.Seconds()
	if out.Requests = len(all); out.Requests == 0 {
		return out
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		return float64(all[min(int(share*float64(len(all))), len(all)-1)].Nanoseconds()) / 1e6
	}
	out.P50, out.P99, out.Max = at(0.50), at(0.99), at(1)
	out.Bytes = total / len(all)
	return out
}

func cpu() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
