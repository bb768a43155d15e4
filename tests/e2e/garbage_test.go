package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// garbage is one client that breaks off, at a place and with bytes that its number decides.
func garbage(address string, number int) {
	connection, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return
	}
	defer connection.Close()
	random := rand.New(rand.NewPCG(uint64(number), 1))
	bytes := make([]byte, random.IntN(4096))
	for i := range bytes {
		bytes[i] = byte(random.Uint32())
	}
	// Long enough for the server to answer, if it will.
	_ = connection.SetDeadline(time.Now().Add(100 * time.Millisecond))
	switch number % 3 {
	case 0:
		_, _ = connection.Write(bytes)
	case 1:
		fmt.Fprintf(connection, "POST /exec/%x HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n%s", bytes[:len(bytes)/64], bytes)
	case 2:
		fmt.Fprintf(connection, "GET /portforward/x HTTP/1.1\r\nHost: localhost\r\n")
	}
	if number%2 == 0 {
		_, _ = connection.Read(make([]byte, 1))
	}
}
