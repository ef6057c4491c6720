package migrations

import (
	"io/fs"
	"strings"
	"testing"
)

func TestFilesAreNumberedWithoutGapsAndHaveBothSections(t *testing.T) {
	list, err := files()
	if err != nil || len(list) == 0 {
		t.Fatalf("%d migrations, %v", len(list), err)
	}
	for i, m := range list {
		if m.Version != int64(i+1) {
			t.Errorf("%s has version %d, want %d", m.Name, m.Version, i+1)
		}
		text, err := fs.ReadFile(FS, m.Name)
		if err != nil {
			t.Fatal(err)
		}
		for _, section := range []string{"-- +goose Up", "-- +goose Down"} {
			if strings.Count(string(text), section) != 1 {
				t.Errorf("%s does not have one section %q", m.Name, section)
			}
		}
	}
}

func TestSchemaFSChoosesTheSchemaInBothSections(t *testing.T) {
	const name = "00001_create_sessions.sql"
	text, err := fs.ReadFile(schemaFS{FS, `My "Schema`}, name)
	if err != nil {
		t.Fatal(err)
	}
	const choose = "SET LOCAL search_path TO \"My \"\"Schema\";\n"
	for _, section := range []string{"-- +goose Up\n", "-- +goose Down\n"} {
		if !strings.Contains(string(text), section+choose) {
			t.Errorf("section %q does not begin with %q", section, choose)
		}
	}
	plain, err := fs.ReadFile(FS, name)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ReplaceAll(string(text), choose, ""); got != string(plain) {
		t.Error("more than that was changed")
	}
}
