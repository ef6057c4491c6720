package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// alarm waits to the microsecond. An idle Go program on Linux sleeps for whole
// milliseconds: that is the resolution of epoll's timeout. A timerfd has no such limit.
type alarm struct {
	fd   int
	file *os.File
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return &alarm{fd, os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (a *alarm) wait(due time.Time) error {
	left := time.Until(due)
	if left <= 0 {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}
	if err := unix.TimerfdSettime(a.fd, 0, &spec, nil); err != nil {
		return err
	}
	var expirations [8]byte
	_, err := a.file.Read(expirations[:])
	return err
}

func (a *alarm) close() {
	if a != nil {
		a.file.Close()
	}
}
