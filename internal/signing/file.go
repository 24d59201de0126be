package signing

import (
	"errors"
	"fmt"
	"strings"
)

// longestPath is more than any path has that somebody wrote.
const longestPath = 1024

// CheckPath refuses what is the content of a file, in place of its path. It
// would be read in vain, and an error that names the path would show it.
func CheckPath(path string) error {
	text := strings.TrimSpace(path)
	switch {
	case strings.Contains(text, "{file."):
		return errors.New("is the path of a file: write it without {file.…}, which stands for what the file holds")
	case strings.ContainsAny(text, "\r\n"), strings.Contains(text, pemBegin), len(text) > longestPath,
		strings.HasPrefix(text, "{") && strings.Contains(text, `"`), strings.HasPrefix(text, "eyJ"):
		return errors.New("holds what belongs into a file: expected the path of that file")
	}
	return nil
}

// ReadFile reads a file whose path may hold placeholders: resolve replaces
// them, and read reads the file by its path as it was written.
func ReadFile(path string, resolve func(string) (string, error), read func(string) ([]byte, error)) ([]byte, error) {
	resolved, err := resolve(path)
	if err != nil {
		return nil, err
	}
	if err := CheckPath(resolved); err != nil {
		return nil, fmt.Errorf("%s %w", path, err)
	}
	return read(path)
}

// LoadKey reads a private key from a file, as ReadFile does.
func LoadKey(path string, resolve func(string) (string, error), read func(string) ([]byte, error)) (*Key, error) {
	content, err := ReadFile(path, resolve, read)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}
