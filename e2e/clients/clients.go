// What Go's net/http meets at a URL whose app sleeps: all at once, one line for each kind of request.
//
//	go run clients.go BASE-URL   prints CLIENT<TAB>VERSION<TAB>KIND<TAB>WHAT HAPPENED
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync"
)

const body = "0123456789"

var line = regexp.MustCompile(`pod=\S* .*method=(\S+) .*bytes=(\d+)`)

func ask(method string, content io.Reader) string {
	request, err := http.NewRequest(method, os.Args[1]+"/go", content)
	if err != nil {
		return err.Error()
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if said := line.FindSubmatch(text); said != nil {
		return fmt.Sprintf("%d, %s of %s bytes", answer.StatusCode, said[1], said[2])
	}
	return fmt.Sprintf("%d, not the app", answer.StatusCode)
}

func main() {
	version := strings.TrimPrefix(runtime.Version(), "go")
	var all sync.WaitGroup
	attempt := func(kind, method string, content io.Reader) {
		defer all.Done()
		fmt.Printf("Go net/http\t%s\t%s\t%s\n", version, kind, ask(method, content))
	}
	all.Add(3)
	go attempt("GET", "GET", nil)
	go attempt("POST", "POST", strings.NewReader(body))
	// A reader of which Go does not know how to begin again.
	go attempt("stream", "POST", io.MultiReader(strings.NewReader(body)))
	all.Wait()
}
