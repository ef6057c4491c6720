package main

import (
	"strings"
	"unicode"
)

// mark is a piece of a user agent and what it means to a person.
type mark struct{ sign, name string }

// The first match counts, so the order matters: every browser claims to be the
// ones before it, Edge to be Chrome and Chrome to be Safari.
var (
	browsers = []mark{
		{"Edg/", "Edge"}, {"EdgA/", "Edge"}, {"EdgiOS/", "Edge"},
		{"OPR/", "Opera"},
		{"SamsungBrowser/", "Samsung Internet"},
		{"Firefox/", "Firefox"}, {"FxiOS/", "Firefox"},
		{"Chrome/", "Chrome"}, {"Chromium/", "Chrome"}, {"CriOS/", "Chrome"},
		{"Safari/", "Safari"},
	}
	systems = []mark{
		{"iPhone", "iPhone"}, {"iPad", "iPad"},
		{"Android", "Android"},
		{"Windows", "Windows"},
		{"CrOS", "ChromeOS"},
		{"Macintosh", "macOS"},
		{"Linux", "Linux"}, {"X11", "Unix"},
	}
	programs = []mark{
		{"curl/", "curl"},
		{"Wget/", "Wget"},
		{"Go-http-client/", "Go program"},
		{"python-requests/", "Python program"},
		{"PostmanRuntime/", "Postman"},
	}
)

const unknownDevice = "Unknown device"

// maxDeviceRunes is where the name that an unknown program gives itself is cut.
const maxDeviceRunes = 40

// device says in a few words what a user agent stands for, such as "Firefox on
// Linux". User agents are what clients say of themselves: good enough to tell
// one's own devices apart, and no more.
func device(userAgent string) string {
	if name := find(programs, userAgent); name != "" {
		return name
	}
	browser, system := find(browsers, userAgent), find(systems, userAgent)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "" || system != "":
		return browser + system
	}
	return productName(userAgent)
}

func find(marks []mark, userAgent string) string {
	for _, m := range marks {
		if strings.Contains(userAgent, m.sign) {
			return m.name
		}
	}
	return ""
}

// productName is the first word of a user agent without its version: "backup" of
// "backup/2.1 (nightly)".
func productName(userAgent string) string {
	fields := strings.Fields(userAgent)
	if len(fields) == 0 {
		return unknownDevice
	}
	name, _, _ := strings.Cut(fields[0], "/")
	name = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return -1
	}, name)
	if name == "" {
		return unknownDevice
	}
	if runes := []rune(name); len(runes) > maxDeviceRunes {
		return string(runes[:maxDeviceRunes-1]) + "…"
	}
	return name
}
