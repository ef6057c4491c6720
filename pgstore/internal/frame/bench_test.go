package frame

import "testing"

func BenchmarkFrame(b *testing.B) {
	loaded := mustEncode(b, codec{"user"}, testDeadline, sixKeys())
	values := sixKeys()
	values["visits"] = 18
	mine := mustEncode(b, codec{"user"}, testDeadline, values)
	values = sixKeys()
	values["theme"] = "light"
	current := mustEncode(b, codec{"user"}, testDeadline, values)
	for _, op := range []struct {
		name string
		f    func()
	}{
		{"Check", func() { _ = Check(loaded) }},
		{"User", func() { User(loaded) }},
		{"Same", func() { Same(loaded, mine) }},
		{"Merge", func() { Merge(loaded, mine, current) }},
	} {
		b.Run(op.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				op.f()
			}
		})
	}
}
