package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// stated is what the configuration's defaults reckon with, MiB, and the RuntimeClass's podFixed.
type stated struct {
	guestMB, hostMB, bufferMB int
	podFixedMB, podFixedCPU   int
}

func readStated(packaging string) (s stated, err error) {
	for _, value := range []struct {
		file, pattern string
		into          *int
	}{
		{"config/config.toml", `(?m)^guest_overhead_mb = (\d+)$`, &s.guestMB},
		{"config/config.toml", `(?m)^host_overhead_mb = (\d+)$`, &s.hostMB},
		{"config/config.toml", `(?m)^tcg_code_buffer_mb = (\d+)$`, &s.bufferMB},
		{"kubernetes/runtimeclass.yaml", `(?m)^    memory: (\d+)Mi$`, &s.podFixedMB},
		{"kubernetes/runtimeclass.yaml", `(?m)^    cpu: (\d+)m$`, &s.podFixedCPU},
	} {
		text, readErr := os.ReadFile(filepath.Join(packaging, value.file))
		if readErr != nil {
			return s, readErr
		}
		found := regexp.MustCompile(value.pattern).FindSubmatch(text)
		if found == nil {
			return s, fmt.Errorf("%s has no line %s", value.file, value.pattern)
		}
		if *value.into, err = strconv.Atoi(string(found[1])); err != nil {
			return s, fmt.Errorf("%s: %w", value.file, err)
		}
	}
	return s, nil
}

// check compares: each part must have room in what is reckoned with, and all of that in the RuntimeClass's podFixed.
func (s stated) check(measured figures) error {
	var wrong []error
	for _, part := range []struct {
		what     string
		measured float64
		stated   int
	}{
		{"vm.guest_overhead_mb", measured.guest / mebi, s.guestMB},
		{"vm.host_overhead_mb", measured.host / mebi, s.hostMB},
		{"vm.tcg_code_buffer_mb", measured.buffer / mebi, s.bufferMB},
		{"podFixed.cpu", measured.cpu / milli, s.podFixedCPU},
	} {
		if part.measured > float64(part.stated) {
			wrong = append(wrong, fmt.Errorf("%s is %d, and %.1f were measured", part.what, part.stated, part.measured))
		}
	}
	if least := s.guestMB + s.hostMB + s.bufferMB; s.podFixedMB < least {
		wrong = append(wrong, fmt.Errorf("podFixed.memory is %dMi, and its parts are %d", s.podFixedMB, least))
	}
	return errors.Join(wrong...)
}
