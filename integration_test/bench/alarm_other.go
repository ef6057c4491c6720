//go:build !linux

package main

import "time"

type alarm struct{}

func newAlarm() (*alarm, error) { return nil, nil }

func (*alarm) wait(due time.Time) error { time.Sleep(time.Until(due)); return nil }
func (*alarm) close()                   {}
