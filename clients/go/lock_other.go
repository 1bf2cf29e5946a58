//go:build !unix

package ingest

import "os"

// lockDir cannot lock here: that one client uses the directory is left to the caller.
func lockDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}
