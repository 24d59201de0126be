package systemd

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// authority issues tokens, and is the API that takes them. It tells in /out
// which secret the last token was asked for with.
func authority() error {
	tokens := http.NewServeMux()
	tokens.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		_, secret, _ := r.BasicAuth()
		if err := tell("secret", secret); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"a-token","token_type":"Bearer","expires_in":3600}`)
	})
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer a-token" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	ended := make(chan error, 2)
	go func() { ended <- http.ListenAndServe("127.0.0.1:9001", tokens) }()
	go func() { ended <- http.ListenAndServe("127.0.0.1:9002", api) }()
	return <-ended
}

// application calls the API once, through the sidecar, and tells in /out how
// that went at this moment of its life.
func application(moment string) error {
	answer, err := http.Get("http://127.0.0.1:8080/")
	if err != nil {
		return tell(moment, err.Error())
	}
	defer answer.Body.Close()
	return tell(moment, answer.Status)
}

// tell writes a file that is there whole or not at all.
func tell(name, what string) error {
	path := filepath.Join("/out", name)
	if err := os.WriteFile(path+".new", []byte(strings.TrimSpace(what)), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
