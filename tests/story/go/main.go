// Story is a Go user's first program against the API: net/http and url.Values, nothing else.
//
// The one argument is the story to tell. Each prints one JSON document for the test to look at.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"regexp"
)

// Object is any JSON object: this program has no types for the API's resources, as a first program would not.
type Object = map[string]any

var given struct {
	ProjectID   string `json:"project_id"`
	TaskID      string `json:"task_id"`
	OtherTaskID string `json:"other_task_id"`
}

func main() {
	log.SetFlags(0)
	if err := json.Unmarshal([]byte(os.Getenv("GIVEN")), &given); err != nil {
		log.Fatal(err)
	}
	stories := map[string]func() Object{"filters": filters, "tasks": tasks, "errors": failures, "batch": batch}
	if err := json.NewEncoder(os.Stdout).Encode(stories[os.Args[1]]()); err != nil {
		log.Fatal(err)
	}
}

// call makes one request and decodes the answer into a value of the type the caller expects.
func call[T any](method, path string, query url.Values, body any) (T, *http.Response) {
	var answer T
	response := send(method, path, query, body, os.Getenv("API_KEY"))
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &answer); err != nil {
			log.Fatalf("%s %s answered %d %s", method, path, response.StatusCode, raw)
		}
	}
	return answer, response
}

func send(method, path string, query url.Values, body any, key string) *http.Response {
	address := os.Getenv("BASE_URL") + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var payload io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			log.Fatal(err)
		}
		payload = bytes.NewReader(encoded)
	}
	request, err := http.NewRequest(method, address, payload)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+key)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	return response
}

// filters asks one question in each way url.Values can spell a list; url.Values percent-encodes every bracket and $.
func filters() Object {
	assignees := []string{"user_456", "user_789"}
	labels := []string{"urgent", "client-work"}
	include := []string{"assignee", "project"}
	spellings := map[string]func(query url.Values, name string, values []string){
		"repeated": func(query url.Values, name string, values []string) {
			query[name] = values
		},
		"bracketed": func(query url.Values, name string, values []string) {
			query[name+"[]"] = values
		},
		"numbered": func(query url.Values, name string, values []string) {
			for i, value := range values {
				query.Set(fmt.Sprintf("%s[%d]", name, i), value)
			}
		},
		"joined by commas": func(query url.Values, name string, values []string) {
			query.Set(name, values[0]+","+values[1])
		},
	}
	found := Object{}
	for name, list := range spellings {
		query := url.Values{
			"project_id":     {given.ProjectID},
			"due_date[$gte]": {"2024-01-01"},
			"due_date[$lte]": {"2024-01-31"},
			"priority":       {"high"},
			"sort":           {"-due_date"},
			"limit":          {"50"},
		}
		list(query, "assignee", assignees)
		list(query, "labels[$in]", labels)
		list(query, "include", include)
		found[name] = rows(query)
	}
	document, err := json.Marshal(Object{
		"project_id": given.ProjectID,
		"assignee":   assignees,
		"due_date":   Object{"$gte": "2024-01-01", "$lte": "2024-01-31"},
		"priority":   "high",
		"labels":     Object{"$in": labels},
	})
	if err != nil {
		log.Fatal(err)
	}
	query := url.Values{"filter": {string(document)}, "sort": {"-due_date"}, "limit": {"50"}, "include": include}
	found["one JSON filter"] = rows(query)
	return found
}

// rows are the tasks of a query as (id, assignee's name, project's name).
func rows(query url.Values) any {
	type named struct {
		Name string `json:"name"`
	}
	type task struct {
		ID       string `json:"id"`
		Assignee named  `json:"assignee"`
		Project  named  `json:"project"`
	}
	response := send("GET", "/tasks", query, nil, os.Getenv("API_KEY"))
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body)
		return string(text)
	}
	var found []task
	if err := json.NewDecoder(response.Body).Decode(&found); err != nil {
		log.Fatal(err)
	}
	listed := [][]string{}
	for _, t := range found {
		listed = append(listed, []string{t.ID, t.Assignee.Name, t.Project.Name})
	}
	return listed
}

// tasks creates several tasks at once, changes one, follows the pages of a list and deletes one.
func tasks() Object {
	created, response := call[[]Object]("POST", "/tasks/bulk", nil, Object{
		"project_id": given.ProjectID,
		"tasks": []Object{
			{"name": "Design mockups", "assignee": "user_123", "labels": []string{"design"}},
			{"name": "Write documentation", "assignee": "user_456"},
			{"name": "Code review", "assignee": "user_789"},
		},
	})
	if response.StatusCode != http.StatusCreated {
		log.Fatalf("bulk create answered %d", response.StatusCode)
	}
	first := "/tasks/" + created[0]["id"].(string)
	updated, _ := call[Object]("PUT", first, nil, Object{
		"name":          "Updated task name",
		"priority":      "high",
		"custom_fields": Object{"estimated_hours": 8, "difficulty": "medium"},
	})
	names := []string{}
	for query := (url.Values{"project_id": {given.ProjectID}, "limit": {"2"}}); query != nil; {
		page, response := call[[]Object]("GET", "/tasks", query, nil)
		for _, task := range page {
			names = append(names, task["name"].(string))
		}
		query = next(response)
	}
	_, deleted := call[Object]("DELETE", "/tasks/"+created[2]["id"].(string), nil, nil)
	left, _ := call[[]Object]("GET", "/tasks", url.Values{"project_id": {given.ProjectID}}, nil)
	return Object{"created": created, "updated": updated, "pages": names, "deleted": deleted.StatusCode, "left": left}
}

var nextLink = regexp.MustCompile(`<([^>]*)>;\s*rel="next"`)

// next reads `Link: <address>; rel="next"`, as the query of the following page; the last page has none.
func next(response *http.Response) url.Values {
	match := nextLink.FindStringSubmatch(response.Header.Get("Link"))
	if match == nil {
		return nil
	}
	address, err := url.Parse(match[1])
	if err != nil {
		log.Fatal(err)
	}
	return address.Query()
}

// failures are what a program meets without a key, with a wrong one, and with a fault in its request.
func failures() Object {
	found := Object{}
	for name, key := range map[string]string{"no key": "", "wrong key": "not-a-key"} {
		response := send("GET", "/projects", nil, nil, key)
		response.Body.Close()
		found[name] = Object{"status": response.StatusCode, "challenge": response.Header.Get("WWW-Authenticate")}
	}
	problem, response := call[Object]("POST", "/tasks", nil, Object{"name": "Call", "assignee": "user_000"})
	found["no such person"] = Object{"type": response.Header.Get("Content-Type"), "problem": problem}
	return found
}

// batch runs three operations at once, and sends them a second time as a client would that got no answer.
func batch() Object {
	operations := Object{"operations": []Object{
		{"method": "PUT", "path": "/tasks/" + given.TaskID, "body": Object{"status": "completed"}},
		{"method": "POST", "path": "/tasks", "body": Object{"name": "Follow-up task", "project_id": given.ProjectID}},
		{"method": "DELETE", "path": "/tasks/" + given.OtherTaskID},
	}}
	encoded, err := json.Marshal(operations)
	if err != nil {
		log.Fatal(err)
	}
	found := Object{}
	for attempt := 0; attempt < 2; attempt++ {
		request, err := http.NewRequest("POST", os.Getenv("BASE_URL")+"/batch", bytes.NewReader(encoded))
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+os.Getenv("API_KEY"))
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("Idempotency-Key", "go-"+given.TaskID)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			log.Fatal(err)
		}
		if err := json.NewDecoder(response.Body).Decode(&found); err != nil {
			log.Fatal(err)
		}
		response.Body.Close()
		found["replayed"] = response.Header.Get("Idempotent-Replayed")
	}
	return found
}
