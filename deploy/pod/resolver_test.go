package pod

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// resolverConfig is the resolv.conf that a kubelet gives a pod: each name with
// fewer than five dots is tried in the cluster first.
var resolverConfig = "search " + namespaceName + ".svc.cluster.local svc.cluster.local cluster.local\n" +
	"nameserver " + resolverIP.String() + "\noptions ndots:5\n"

// zone is all the names there are.
var zone = map[string]netip.Addr{serverName + ".": serverIP, apiName + ".": apiIP}

// resolve answers for the names of the cluster's servers.
func (c *cluster) resolve(t *testing.T) {
	t.Helper()
	var conn net.PacketConn
	err := c.services.in(func() (err error) {
		conn, err = net.ListenPacket("udp", netip.AddrPortFrom(resolverIP, 53).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		query := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(query)
			if err != nil {
				return
			}
			if answer, err := answerQuery(query[:n]); err == nil {
				_, _ = conn.WriteTo(answer, from) // one that is lost is asked for again
			}
		}
	}()
}

func answerQuery(query []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(query)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	answer := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	addr, known := zone[strings.ToLower(question.Name.String())]
	switch {
	case !known:
		answer.RCode = dnsmessage.RCodeNameError
	case question.Type == dnsmessage.TypeA:
		answer.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 5},
			Body:   &dnsmessage.AResource{A: addr.As4()},
		}}
	}
	return answer.Pack()
}
