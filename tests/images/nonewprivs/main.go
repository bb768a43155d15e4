// Nonewprivs says as whom it runs. It is installed setuid root in the image of the same name.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("Effective uid: %d\n", os.Geteuid())
}
