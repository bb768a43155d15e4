// Command list is the program of the test image whose files are compared with another runtime's: it lists its own root.
package main

import (
	"fmt"
	"os"

	"a3s.box/tests/images/listing"
)

func main() {
	entries, err := listing.Walk("/", listing.MadeByRuntime)
	if err == nil {
		err = listing.Write(os.Stdout, entries)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "list:", err)
		os.Exit(1)
	}
}
