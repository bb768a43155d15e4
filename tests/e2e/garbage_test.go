package e2e

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"time"
)

// garbage is one client that breaks off, at a place and with bytes that its number decides. Each fourth has one of the
// URLs, as long as there are some. An error is that it does not get as far.
func garbage(address string, number int, urls chan string) error {
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return err
	}
	defer connection.Close()
	random := rand.New(rand.NewPCG(uint64(number), 1))
	bytes := make([]byte, random.IntN(4096))
	for i := range bytes {
		bytes[i] = byte(random.Uint32())
	}
	// Long enough for the server to answer, if it will.
	_ = connection.SetDeadline(time.Now().Add(100 * time.Millisecond))
	switch number % 4 {
	case 0:
		_, _ = connection.Write(bytes)
	case 1:
		fmt.Fprintf(connection, "POST /exec/%x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n%s", bytes[:len(bytes)/64], bytes)
	case 2:
		fmt.Fprintf(connection, "GET /portforward/x HTTP/1.1\r\nHost: localhost\r\n")
	case 3:
		select {
		case address := <-urls:
			return garbageSession(connection, address, bytes)
		default:
		}
	}
	if number%8 < 4 {
		_, _ = connection.Read(make([]byte, 1))
	}
	return nil
}

// garbageSession begins a session of SPDY as it should be, and goes on otherwise.
func garbageSession(connection net.Conn, address string, bytes []byte) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	const upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"
	fmt.Fprintf(connection, "POST %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", u.Path, u.Host, upgrade)
	const switching = "HTTP/1.1 101"
	answer := make([]byte, len(switching))
	if _, err := io.ReadFull(connection, answer); err != nil || string(answer) != switching {
		return fmt.Errorf("the answer to a good request is %q, %v", answer, err)
	}
	// A control frame of a header block comes first, so that the parser gets to the bytes.
	if len(bytes) > 8 {
		copy(bytes, []byte{0x80, 3, 0, 1, 0, 0, 0})
	}
	_, _ = connection.Write(bytes)
	return nil
}
