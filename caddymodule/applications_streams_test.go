package caddymodule

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpccredentials "google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/authserver"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/freeport"
)

// spoken is a message of the service Echo, which is what protoc would make of
//
//	rpc Say(StringValue) returns (StringValue);
//	rpc Count(StringValue) returns (stream StringValue);
//	rpc Talk(stream StringValue) returns (stream StringValue);
type spoken = wrapperspb.StringValue

// echoService is it for a server.
var echoService = grpc.ServiceDesc{
	ServiceName: "example.Echo",
	Streams: []grpc.StreamDesc{
		{StreamName: "Say", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			in, err := whole(s)
			if err != nil {
				return err
			}
			return s.SendMsg(in)
		}},
		{StreamName: "Count", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			in, err := whole(s)
			if err != nil {
				return err
			}
			for n := range 3 {
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(in.Value, n))); err != nil {
					return err
				}
			}
			return nil
		}},
		{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				in := new(spoken)
				if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		}},
	},
}

// whole reads the one message of a request, and its end: an answer before that
// is a race in Caddy's own Close.
func whole(s grpc.ServerStream) (*spoken, error) {
	in := new(spoken)
	if err := s.RecvMsg(in); err != nil {
		return nil, err
	}
	if err := s.RecvMsg(new(spoken)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("after the message: %w", err)
	}
	return in, nil
}

// echo serves it, with TLS, to those who bring a token of the server's.
func (a *application) echo(server string) {
	a.t.Helper()
	admit := func(ctx context.Context) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if fields := md.Get("authorization"); len(fields) != 1 || !carriesToken(a.auth[server], fields[0]) {
			return status.Error(codes.Unauthenticated, "no such token")
		}
		return nil
	}
	s := grpc.NewServer(grpc.Creds(grpccredentials.NewServerTLSFromCert(&a.cert)),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := admit(ss.Context()); err != nil {
				_, _ = whole(ss)
				return err
			}
			return next(srv, ss)
		}))
	s.RegisterService(&echoService, nil)
	l, err := net.Listen("tcp", freeport.Addr(a.t))
	if err != nil {
		a.t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	a.t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			a.t.Error(err)
		}
	})
	a.at("grpc.example.com", l.Addr().String())
}

// channel is a client of it, by way of Caddy.
func (a *application) channel(options ...grpc.DialOption) *grpc.ClientConn {
	a.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+a.proxy, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// say calls, and returns the answer or the code.
func say(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	out := new(spoken)
	err := conn.Invoke(ctx, "/example.Echo/Say", wrapperspb.String("hello"), out)
	return out.Value, err
}

func (a *application) wantCode(err error, code codes.Code, says string) {
	a.t.Helper()
	if status.Code(err) != code || !strings.Contains(err.Error(), says) {
		a.t.Errorf("got %v, want %v and %q", err, code, says)
	}
}

func TestApplicationsGRPC(t *testing.T) {
	a := newApplication(t, "gRPC", 0)
	a.echo("idp.example.com")
	a.start()
	auth, conn := a.auth["idp.example.com"], a.channel()
	if got, err := say(t.Context(), conn); got != "hello" || err != nil {
		t.Errorf("unary: %q %v", got, err)
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/example.Echo/Count")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(stream.SendMsg(wrapperspb.String("n")), stream.CloseSend()); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		out := new(spoken)
		if err := stream.RecvMsg(out); err != nil || out.Value != fmt.Sprint("n", n) {
			t.Errorf("message %d: %q %v", n, out.Value, err)
		}
	}
	if err := stream.RecvMsg(new(spoken)); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}

	talk, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/example.Echo/Talk")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"one", "two", "three"} {
		out := new(spoken)
		if err := errors.Join(talk.SendMsg(wrapperspb.String(word)), talk.RecvMsg(out)); err != nil || out.Value != word {
			t.Errorf("%s: %q %v", word, out.Value, err)
		}
		auth.RevokeAll() // the stream goes on with the token that it began with
	}
	if err := errors.Join(talk.CloseSend(), talk.RecvMsg(new(spoken))); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}

	// the API refuses by grpc-status, which is no refusal here
	_, err = say(t.Context(), conn)
	a.wantCode(err, codes.Unauthenticated, "no such token")
	if auth.Issued() != 1 {
		t.Errorf("%d tokens", auth.Issued())
	}
	// a Host that is not named
	_, err = say(t.Context(), a.channel(grpc.WithAuthority("grpc.example.com")))
	a.wantCode(err, codes.Unknown, "421")
}

// TestApplicationsGRPCNoToken: what a client sees while there is no token, and
// what waits for one.
func TestApplicationsGRPCNoToken(t *testing.T) {
	a := newApplication(t, "gRPC", 0)
	a.echo("idp.example.com")
	auth, conn := a.auth["idp.example.com"], a.channel()
	auth.SetFault(authserver.Invalid("invalid_client", ""))
	a.start()
	_, err := say(t.Context(), conn)
	a.wantCode(err, codes.Unavailable, "502")
	a.stop()

	auth.SetFault(authserver.Down())
	a.start()
	eventually(t, "two failures", func() bool {
		_, err = say(t.Context(), conn)
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "503")
	})
	a.stop()

	// a call that comes before the first token waits for it
	release := make(chan struct{})
	auth.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		<-release
		next.ServeHTTP(w, r)
	})
	a.start()
	time.AfterFunc(100*time.Millisecond, func() { close(release) })
	if got, err := say(t.Context(), conn); got != "hello" || err != nil {
		t.Errorf("a call that waits: %q %v", got, err)
	}
}

// TestApplicationsGRPCGateway: what answers 401 before the API, and a Caddyfile
// without h2c.
func TestApplicationsGRPCGateway(t *testing.T) {
	a := newApplication(t, "gRPC", 0)
	a.serve("grpc.example.com", "idp.example.com", tells("gateway"))
	a.start()
	eventually(t, "a token", func() bool { return a.get("/").status == http.StatusOK })
	a.auth["idp.example.com"].RevokeAll()
	conn := a.channel()
	_, err := say(t.Context(), conn)
	a.wantCode(err, codes.Unauthenticated, "401")
	a.stop()

	a.text = strings.Replace(a.text, "protocols h1 h2c", "protocols h1", 1)
	a.start()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = say(ctx, a.channel())
	a.wantCode(err, codes.Unavailable, "server preface")
}

// dialWebSocket opens one by way of Caddy.
func (a *application) dialWebSocket(origin string) (*websocket.Conn, error) {
	config, err := websocket.NewConfig("ws://"+a.proxy+"/events", origin)
	if err != nil {
		a.t.Fatal(err)
	}
	dial := func() (*websocket.Conn, error) {
		conn, err := config.DialContext(a.t.Context())
		if no, ok := errors.AsType[*websocket.DialError](err); ok {
			err = no.Err
		}
		return conn, err
	}
	conn, err := dial()
	for errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // as in parts.get
		conn, err = dial()
	}
	if err == nil {
		a.t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return conn, err
}

func (a *application) wantEcho(conn *websocket.Conn, word string) {
	a.t.Helper()
	var got string
	if err := errors.Join(websocket.Message.Send(conn, word), websocket.Message.Receive(conn, &got)); err != nil || got != word {
		a.t.Errorf("%s: got %q %v", word, got, err)
	}
}

func TestApplicationsWebSocket(t *testing.T) {
	echo := websocket.Server{Handler: func(conn *websocket.Conn) { _, _ = io.Copy(conn, conn) }}
	for _, a := range []*application{newApplication(t, "WebSocket", 0), newApplication(t, "WebSocket", 1)} {
		a.serve("api.example.com", "idp.example.com", echo.ServeHTTP)
		auth := a.auth["idp.example.com"]
		a.start()
		conn, err := a.dialWebSocket("http://" + a.proxy)
		if err != nil {
			t.Fatal(err)
		}
		a.wantEcho(conn, "one")

		// pages of others, and of a name that was led here
		for _, origin := range []string{"https://elsewhere.example.com", "http://elsewhere.example.com:" + a.port["8080"], "null"} {
			a.wantRaw("GET /events HTTP/1.1\r\nHost: "+a.proxy+"\r\nOrigin: "+origin+"\r\nUpgrade: websocket", "HTTP/1.1 403 ")
		}
		a.wantRaw("GET /events HTTP/1.1\r\nHost: elsewhere.example.com:"+a.port["8080"], "HTTP/1.1 421 ")

		// it outlives its token, and a reload
		auth.RevokeAll()
		a.wantEcho(conn, "two")
		a.text = strings.Replace(a.text, "persist_config off", "persist_config off\ngrace_period 10s", 1)
		a.start()
		a.wantEcho(conn, "three")

		// a handshake with a token that is refused is the client's to make again
		if _, err := a.dialWebSocket("http://" + a.proxy); !errors.Is(err, websocket.ErrBadStatus) {
			t.Errorf("with a revoked token: %v", err)
		}
		eventually(t, "another token", func() bool {
			conn, err = a.dialWebSocket("http://" + a.proxy)
			return err == nil
		})
		a.wantEcho(conn, "four")
		_ = conn.Close()
		a.stop()

		// without the delay a reload closes it
		a.text = strings.Replace(a.text, "stream_close_delay 1h", "", 1)
		a.start()
		if conn, err = a.dialWebSocket("http://" + a.proxy); err != nil {
			t.Fatal(err)
		}
		a.wantEcho(conn, "five")
		a.text = strings.Replace(a.text, "grace_period 10s", "grace_period 11s", 1)
		a.start()
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after a reload: %v", err)
		}

		// without a token there is no connection
		auth.SetFault(authserver.Invalid("invalid_client", ""))
		a.stop()
		a.start()
		if _, err := a.dialWebSocket("http://" + a.proxy); !errors.Is(err, websocket.ErrBadStatus) {
			t.Errorf("without a token: %v", err)
		}
		a.stop()
	}
}

// TestApplicationsStreams: what comes in parts is passed in parts, with nothing
// set.
func TestApplicationsStreams(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "application/x-ndjson"} {
		a := newApplication(t, "A base URL", 0)
		next := make(chan struct{})
		a.serve("api.example.com", "idp.example.com", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for n := range 3 {
				fmt.Fprintf(w, "data: %d\n", n)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-next:
				case <-r.Context().Done():
				}
			}
		})
		a.start()
		res, err := a.client.Get("http://" + a.proxy + "/events")
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(res.Body)
		for n := range 3 {
			if line, err := lines.ReadString('\n'); line != fmt.Sprintf("data: %d\n", n) {
				t.Errorf("%s: part %d: %q %v", kind, n, line, err)
			}
			a.auth["idp.example.com"].RevokeAll()
			next <- struct{}{}
		}
		res.Body.Close()
		a.stop()
	}
}
