package main

import (
	"strings"
	"testing"
)

func TestDevice(t *testing.T) {
	t.Parallel()
	const (
		webkit = "AppleWebKit/537.36 (KHTML, like Gecko)"
		x11    = "Mozilla/5.0 (X11; Linux x86_64) " + webkit
		win    = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) " + webkit
		mac    = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
		iphone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
		droid  = "Mozilla/5.0 (Linux; Android 10; K) " + webkit
	)
	for _, test := range []struct{ userAgent, want string }{
		{"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"},
		{x11 + " Chrome/140.0.0.0 Safari/537.36", "Chrome on Linux"},
		{x11 + " HeadlessChrome/140.0.0.0 Safari/537.36", "Chrome on Linux"},
		{win + " Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", "Edge on Windows"},
		{win + " Chrome/140.0.0.0 Safari/537.36 OPR/120.0.0.0", "Opera on Windows"},
		{mac + " Version/18.5 Safari/605.1.15", "Safari on macOS"},
		{iphone + " Version/18.5 Mobile/15E148 Safari/604.1", "Safari on iPhone"},
		{iphone + " CriOS/140.0.0.0 Mobile/15E148 Safari/604.1", "Chrome on iPhone"},
		{iphone + " FxiOS/140.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPhone"},
		{droid + " Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"},
		{droid + " SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36", "Samsung Internet on Android"},
		{"Mozilla/5.0 (X11; CrOS x86_64 16181.61.0) " + webkit + " Chrome/140.0.0.0 Safari/537.36", "Chrome on ChromeOS"},
		{"Mozilla/5.0 (PlayStation; PlayStation 5/8.00) Safari/605.1.15", "Safari"},
		{"Mozilla/5.0 (Windows NT 10.0; Trident/7.0; rv:11.0) like Gecko", "Windows"},
		{"curl/8.15.0", "curl"},
		{"Wget/1.25.0", "Wget"},
		{"Go-http-client/1.1", "Go program"},
		{"python-requests/2.32.4", "Python program"},
		{"backup/2.1 (nightly)", "backup"},
		{"backup", "backup"},
		{"", unknownDevice},
		{" \t ", unknownDevice},
		{"/1.0", unknownDevice},
		{"\uFFFD\u202e", unknownDevice},
		{"ca\u202efé/1", "café"},
		{strings.Repeat("é", maxDeviceRunes), strings.Repeat("é", maxDeviceRunes)},
		{strings.Repeat("é", maxDeviceRunes+1), strings.Repeat("é", maxDeviceRunes-1) + "…"},
	} {
		if got := device(test.userAgent); got != test.want {
			t.Errorf("device(%q) = %q, want %q", test.userAgent, got, test.want)
		}
	}
}
