package pod

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is a network namespace. It has no name anywhere: it is there as long
// as its file is open, or a process is in it.
type network struct{ file *os.File }

// newNetwork makes a namespace in which nothing but loopback is up.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := new(network)
	err := onThread(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			return err
		}
		if n.file, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return err
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		t.Fatalf("a network namespace: %v", err)
	}
	t.Cleanup(func() { n.file.Close() })
	return n
}

// onThread runs f on a thread that ends with it, and takes along whatever
// namespaces f has put it into.
func onThread(f func() error) error {
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		ended <- f()
	}()
	return <-ended
}

// in runs f in the namespace. A socket belongs to the one in which it is made.
func (n *network) in(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// DialContext connects from the namespace to an address, which has no name in
// it: a resolver would leave the thread.
func (n *network) DialContext(ctx context.Context, kind, addr string) (conn net.Conn, err error) {
	if _, err := netip.ParseAddrPort(addr); err != nil {
		return nil, err
	}
	err = n.in(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, kind, addr)
		return err
	})
	return conn, err
}

// listen listens in the namespace.
func (n *network) listen(addr netip.AddrPort) (ln net.Listener, err error) {
	err = n.in(func() error {
		ln, err = net.Listen("tcp", addr.String())
		return err
	})
	return ln, err
}

// bridgeName is that of the node's end.
const bridgeName = "pods"

// bridge gives the node an address, and a bridge to connect others to.
func (n *network) bridge(t *testing.T, addr netip.Addr) {
	t.Helper()
	err := n.in(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridgeName
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		return address(bridgeName, addr)
	})
	if err != nil {
		t.Fatalf("the node's bridge: %v", err)
	}
}

// connect gives a namespace addresses on the node's bridge.
func (n *network) connect(t *testing.T, other *network, link string, addrs ...netip.Addr) {
	t.Helper()
	err := n.in(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = link
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: "eth0",
			PeerNamespace: netlink.NsFd(int(other.file.Fd())),
		})
		if err != nil {
			return err
		}
		here, err := netlink.LinkByName(link)
		if err != nil {
			return err
		}
		pods, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetMaster(here, pods), netlink.LinkSetUp(here))
	})
	if err == nil {
		err = other.in(func() error { return address("eth0", addrs...) })
	}
	if err != nil {
		t.Fatalf("connecting %s: %v", link, err)
	}
}

// address gives a link of this thread's namespace its addresses.
func address(link string, addrs ...netip.Addr) error {
	l, err := netlink.LinkByName(link)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		parsed, err := netlink.ParseAddr(netip.PrefixFrom(addr, 24).String())
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(l, parsed); err != nil {
			return fmt.Errorf("%s on %s: %w", addr, link, err)
		}
	}
	return netlink.LinkSetUp(l)
}

// sysctl sets what is the namespace's own.
func (n *network) sysctl(name, value string) error {
	return n.in(func() error { return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644) })
}

// leadLoopbackTo sends what goes to 127.0.0.1 to another host, as root in a
// hostile pod can.
func (n *network) leadLoopbackTo(via netip.Addr) error {
	for _, name := range []string{"ipv4/conf/all/route_localnet", "ipv4/conf/eth0/route_localnet"} {
		if err := n.sysctl(name, "1"); err != nil {
			return err
		}
	}
	return n.in(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		own, err := netlink.ParseAddr("127.0.0.1/8")
		if err != nil {
			return err
		}
		if err := netlink.AddrDel(lo, own); err != nil {
			return err
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, loopback, err := net.ParseCIDR("127.0.0.0/8")
		if err != nil {
			return err
		}
		return netlink.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: loopback, Gw: via.AsSlice()})
	})
}
