package migrations

import (
	"bytes"
	"fmt"
	"io/fs"
	"strings"

	"github.com/pressly/goose/v3"
)

// files lists the embedded migrations.
func files() ([]Migration, error) {
	names, err := fs.Glob(FS, "*.sql")
	if err != nil {
		return nil, err
	}
	list := make([]Migration, len(names))
	for i, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, err
		}
		list[i] = Migration{Version: version, Name: name}
	}
	return list, nil
}

func latestVersion() (int64, error) {
	list, err := files()
	var latest int64
	for _, f := range list {
		latest = max(latest, f.Version)
	}
	return latest, err
}

// schemaFS serves the same files with each section beginning by choosing the
// schema, for its own transaction only.
type schemaFS struct {
	fs.FS
	schema string
}

func (f schemaFS) Open(name string) (fs.File, error) {
	if !strings.HasSuffix(name, ".sql") {
		return f.FS.Open(name)
	}
	text, err := fs.ReadFile(f.FS, name)
	if err != nil {
		return nil, err
	}
	choose := fmt.Sprintf("\nSET LOCAL search_path TO %s;", quote(f.schema))
	for _, section := range []string{"-- +goose Up", "-- +goose Down"} {
		text = bytes.Replace(text, []byte(section), []byte(section+choose), 1)
	}
	info, err := fs.Stat(f.FS, name)
	return memFile{bytes.NewReader(text), info}, err
}

// memFile is an open file whose content is in memory.
type memFile struct {
	text *bytes.Reader
	info fs.FileInfo
}

func (f memFile) Read(p []byte) (int, error) { return f.text.Read(p) }
func (f memFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f memFile) Close() error               { return nil }
