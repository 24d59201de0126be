package authserver

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// listen serves h on a real socket, and returns a client of its own.
func listen(t *testing.T, h http.Handler) (*Listener, *http.Client) {
	t.Helper()
	l, err := Listen("127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, &http.Client{Transport: transport}
}

// fetch asks for a token over the wire and reads all of the answer.
func fetch(c *http.Client, url string) (response *http.Response, body []byte, err error) {
	response, err = c.Post(url, "application/x-www-form-urlencoded", strings.NewReader(form()))
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response, body, err
}

// secure is a server with TLS and the client that trusts it.
func secure(t *testing.T, h http.Handler, http2 bool) (*Listener, *http.Client) {
	t.Helper()
	lender := httptest.NewTLSServer(nil) // of a certificate
	lender.Close()
	l, err := ListenTLS("127.0.0.1:0", h, &tls.Config{Certificates: lender.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	trust := lender.Client().Transport.(*http.Transport).TLSClientConfig
	return l, &http.Client{Transport: &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: http2}}
}

func TestReset(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	s.SetFault(Reset())
	t.Run("http", func(t *testing.T) {
		l, c := listen(t, s)
		if _, _, err := fetch(c, l.URL()+TokenPath); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
	})
	t.Run("https", func(t *testing.T) {
		l, c := secure(t, s, false)
		if _, _, err := fetch(c, l.URL()+TokenPath); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client sees %v", err)
		}
	})
	t.Run("http2", func(t *testing.T) {
		l, c := secure(t, s, true)
		if _, _, err := fetch(c, l.URL()+TokenPath); err == nil || !strings.Contains(err.Error(), "stream error") {
			t.Errorf("the client sees %v", err)
		}
	})
}

func TestCutBody(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	l, c := listen(t, s)
	s.SetFault(CutBody())
	response, body, err := fetch(c, l.URL()+TokenPath)
	if !errors.Is(err, io.ErrUnexpectedEOF) || response.StatusCode != 200 {
		t.Fatalf("the client sees %v, %v", response, err)
	}
	if !bytes.HasPrefix(body, []byte(`{"access_token":"at-`)) || int64(len(body)) != response.ContentLength/2 {
		t.Errorf("it was promised %d bytes and had %d", response.ContentLength, len(body))
	}
	if s.Issued() != 1 {
		t.Errorf("%d tokens are issued", s.Issued())
	}
}

func TestHuge(t *testing.T) {
	const size = 3<<20 + 7
	s := New(Config{})
	l, c := listen(t, s)
	s.SetFault(Huge(size))
	if _, body, err := fetch(c, l.URL()+TokenPath); err != nil || len(body) != size || !bytes.HasSuffix(body, []byte(`a"}`)) {
		t.Errorf("%d bytes came: %v", len(body), err)
	}
	ended := make(chan struct{})
	s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer close(ended)
		Huge(1<<50)(w, r, next)
	})
	response, err := c.Post(l.URL()+TokenPath, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	<-ended // only if it minds that the client has left
}

func TestDrip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{ClientID: client, ClientSecret: secret})
		s.SetFault(Drip(time.Second))
		l := ListenMemory(s)
		defer l.Close()
		transport := &http.Transport{DialContext: l.Dial}
		defer transport.CloseIdleConnections()
		start := time.Now()
		response, err := (&http.Client{Transport: transport}).Post(l.URL()+TokenPath, "application/x-www-form-urlencoded", strings.NewReader(form()))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		for n := range int(response.ContentLength) {
			if _, err := response.Body.Read(make([]byte, 9)); err != nil && err != io.EOF {
				t.Fatal(err)
			}
			if took := time.Since(start); took != time.Duration(n+1)*time.Second {
				t.Fatalf("byte %d came after %v", n, took)
			}
		}
	})
}

func TestDripOnASocket(t *testing.T) {
	s := New(Config{ClientID: client, ClientSecret: secret})
	l, c := listen(t, s)
	s.SetFault(Drip(time.Microsecond))
	_, body, err := fetch(c, l.URL()+TokenPath)
	if err != nil || !bytes.HasSuffix(body, []byte(`"token_type":"Bearer"}`)) {
		t.Errorf("the client has %d bytes: %v", len(body), err)
	}
}

// TestNoLastWords closes a server, or leaves it, while a fault takes its time.
func TestNoLastWords(t *testing.T) {
	for name, fault := range map[string]Fault{"hang": Hang(), "slow": Slow(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{ClientID: client, ClientSecret: secret})
			l, c := listen(t, s)
			arrived, ended := make(chan struct{}, 2), make(chan struct{}, 2)
			s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				arrived <- struct{}{}
				defer func() { ended <- struct{}{} }()
				fault(w, r, next)
			})

			ctx, leave := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.URL()+TokenPath, strings.NewReader(form()))
			if err != nil {
				t.Fatal(err)
			}
			go func() { <-arrived; leave() }()
			if _, err := c.Do(r); !errors.Is(err, context.Canceled) {
				t.Errorf("the client that left sees %v", err)
			}
			<-ended

			go func() { <-arrived; l.Close() }()
			if response, _, err := fetch(c, l.URL()+TokenPath); err == nil {
				t.Errorf("the client of a server that closes is answered %d", response.StatusCode)
			}
			<-ended
		})
	}
}
