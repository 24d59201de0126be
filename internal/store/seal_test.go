package store

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParseKeys(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb, 0xef}, 16) // of which base64 makes + and /, or - and _
	std := base64.StdEncoding.EncodeToString(raw)
	for name, tc := range map[string]struct {
		texts []string
		n     int
		says  string
	}{
		"none":           {},
		"padded":         {texts: []string{std}, n: 1},
		"not padded":     {texts: []string{base64.RawStdEncoding.EncodeToString(raw)}, n: 1},
		"url":            {texts: []string{base64.URLEncoding.EncodeToString(raw)}, n: 1},
		"url not padded": {texts: []string{base64.RawURLEncoding.EncodeToString(raw)}, n: 1},
		"a line":         {texts: []string{std + "\r\n"}, n: 1},
		"two":            {texts: []string{std, keyText(1)}, n: 2},
		"empty":          {texts: []string{" "}, says: "key 1 of 1 is empty: make one with: openssl rand -base64 32"},
		"only padding":   {texts: []string{"===="}, says: "has 0 bytes"},
		"16 bytes":       {texts: []string{keyText(1), base64.StdEncoding.EncodeToString(raw[:16])}, says: "key 2 of 2 has 16 bytes, expected 32; make one with: openssl rand -base64 32"},
		"33 bytes":       {texts: []string{base64.StdEncoding.EncodeToString(append(raw, 1))}, says: "has 33 bytes, expected 32"},
		"hexadecimal":    {texts: []string{hex.EncodeToString(raw)}, says: "looks hexadecimal"},
		"a password":     {texts: []string{"correct horse battery!"}, says: "not base64"},
		"a placeholder":  {texts: []string{"{env.TOKEN_STORE_KEY}"}, says: "not base64"},
		"the same":       {texts: []string{std, keyText(1), base64.RawURLEncoding.EncodeToString(raw)}, says: "key 3 of 3 is the same as key 1"},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ParseKeys(tc.texts)
			if tc.says == "" {
				if err != nil || len(k.list) != tc.n {
					t.Fatalf("got %v, %v; want %d keys", k, err, tc.n)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.says) {
				t.Fatalf("got %v, want %q", err, tc.says)
			}
			for _, text := range tc.texts {
				if text = strings.TrimRight(text, "="); len(text) > 3 && strings.Contains(err.Error(), text) {
					t.Errorf("the key is in %q", err)
				}
			}
		})
	}
	if n := len(mustKeys(t, std).list[0].id); n != 8 {
		t.Errorf("a name of %d digits", n)
	}
}

// TestKeysInPrint: a key that is logged by mistake is not shown.
func TestKeysInPrint(t *testing.T) {
	k := mustKeys(t, keyText(1))
	for _, got := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%d", k), fmt.Sprint((*Keys)(nil))} {
		if got != "keys "+k.ids() && got != "no keys" {
			t.Errorf("got %q", got)
		}
	}
}

// stored1 is what the first release wrote, for the value {"n":1} of crm at
// crmPath with keyText(1).
const stored1 = `{"v":1,"key":"72cd6e84","sealed":"XpOc07u43iOzx9mVbIHaxH9+VILu7/XSqkW8w8ZF/kSEJOo="}`

func TestOldValuesOpen(t *testing.T) {
	m := &memory{}
	m.put(crmPath, stored1)
	got, err := New(m, mustKeys(t, keyText(2), keyText(1))).Value(crmPath, "crm").Load(t.Context())
	if err != nil || string(got) != `{"n":1}` {
		t.Errorf("got %s, %v: what users have stored would be lost", got, err)
	}
}

// TestUnreadable is every way in which a stored value cannot be read. Each says
// what to do, and none is taken for nothing.
func TestUnreadable(t *testing.T) {
	one, other := mustKeys(t, keyText(1)), mustKeys(t, keyText(2), keyText(3))
	seal := func(k *Keys, path, credential string) string {
		m := &memory{}
		if err := New(m, k).Value(path, credential).Save(t.Context(), []byte(`"s3cret"`)); err != nil {
			t.Fatal(err)
		}
		return m.get(path)
	}
	good, plain := seal(one, crmPath, "crm"), seal(nil, crmPath, "crm")
	var flipped stored
	if err := json.Unmarshal([]byte(good), &flipped); err != nil {
		t.Fatal(err)
	}
	flipped.Sealed[len(flipped.Sealed)-1] ^= 1
	altered, err := json.Marshal(flipped)
	if err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		raw  string
		keys *Keys
		is   error
		says []string
	}{
		"empty":               {raw: "", keys: one, says: []string{"is empty", "cut short", "restore"}},
		"blank":               {raw: "\n", keys: one, says: []string{"cut short"}},
		"cut in half":         {raw: good[:len(good)/2], keys: one, says: []string{"cut short", "restore it from a backup, or delete it"}},
		"plain, cut in half":  {raw: plain[:len(plain)/2], says: []string{"cut short"}},
		"zeros":               {raw: strings.Repeat("\x00", 64), says: []string{"cut short"}},
		"two documents":       {raw: good + good, keys: one, says: []string{"cut short"}},
		"a page":              {raw: "<html>", says: []string{"never written by this program"}},
		"null":                {raw: "null", says: []string{"never written by this program"}},
		"another's JSON":      {raw: `{"refresh_token":"s3cret"}`, says: []string{"never written by this program"}},
		"version a word":      {raw: `{"v":"1","plain":1}`, says: []string{"never written by this program"}},
		"version 2":           {raw: `{"v":2,"plain":1}`, says: []string{"has version 2", "knows version 1"}},
		"version 0":           {raw: `{"v":0,"plain":1}`, says: []string{"has version 0"}},
		"nothing in it":       {raw: `{"v":1}`, says: []string{"neither"}},
		"both":                {raw: `{"v":1,"sealed":"AAAA","plain":1}`, says: []string{"neither"}},
		"not base64":          {raw: `{"v":1,"key":"00000000","sealed":"!s3cret"}`, keys: one, says: []string{"never written"}},
		"key not configured":  {raw: good, keys: other, says: []string{"is sealed with the key " + one.ids(), "(" + other.ids() + ")", "write the older key behind the new one in encryption_key"}},
		"key without a name":  {raw: `{"v":1,"sealed":"AAAA"}`, keys: one, says: []string{"(unnamed)"}},
		"key with a bad name": {raw: `{"v":1,"key":"\u001b[31m evil","sealed":"AAAA"}`, keys: one, says: []string{"(unnamed)"}},
		"and one of 8":        {raw: `{"v":1,"key":"\u001b[31mevi","sealed":"AAAA"}`, keys: one, says: []string{"(unnamed)"}},
		"altered":             {raw: string(altered), keys: one, says: []string{"altered, or moved", "restore"}},
		"too short to open":   {raw: `{"v":1,"key":"` + one.ids() + `","sealed":"AAAA"}`, keys: one, says: []string{"altered"}},
		"sealed, empty":       {raw: `{"v":1,"key":"` + one.ids() + `","sealed":""}`, keys: one, says: []string{"altered"}},
		"of another path":     {raw: seal(one, "upstream_auth/crm/2.json", "crm"), keys: one, says: []string{"moved here from another path"}},
		"of another":          {raw: seal(one, crmPath, "erp"), keys: one, says: []string{"moved here from another path or credential"}},
		"split elsewhere":     {raw: seal(one, crmPath+"c", "rm"), keys: one, says: []string{"moved"}},
		"plain beside keys":   {raw: plain, keys: one, is: ErrPlain, says: []string{"is not sealed, although encryption_key is set", "delete it"}},
		"sealed, no keys":     {raw: good, is: ErrSealed, says: []string{"no encryption_key is configured", "write the key that sealed it, " + one.ids()}},
		"sealed, empty keys":  {raw: good, keys: mustKeys(t), is: ErrSealed},
	} {
		t.Run(name, func(t *testing.T) {
			m := &memory{}
			m.put(crmPath, tc.raw)
			got, err := New(m, tc.keys).Value(crmPath, "crm").Load(t.Context())
			u, ok := errors.AsType[*Unreadable](err)
			if !ok || u.Path != crmPath || got != nil || errors.Is(err, ErrNotFound) {
				t.Fatalf("got %q, %v", got, err)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("got %v, want %v", err, tc.is)
			}
			for _, want := range append(tc.says, crmPath) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.ContainsAny(err.Error(), "\x1b\x00\n") || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the value is in %q", err)
			}
		})
	}
}

// TestRotation: an older key opens, the first one seals.
func TestRotation(t *testing.T) {
	m := &memory{}
	older, both, newer := mustKeys(t, keyText(1)), mustKeys(t, keyText(2), keyText(1)), mustKeys(t, keyText(2))
	value := func(k *Keys) *Value { return New(m, k).Value(crmPath, "crm") }
	if err := value(older).Save(t.Context(), []byte("1")); err != nil {
		t.Fatal(err)
	}
	if got, err := value(both).Load(t.Context()); err != nil || string(got) != "1" {
		t.Fatalf("got %s, %v", got, err)
	}
	if err := value(both).Save(t.Context(), []byte("2")); err != nil {
		t.Fatal(err)
	}
	if got, err := value(newer).Load(t.Context()); err != nil || string(got) != "2" {
		t.Errorf("got %s, %v", got, err)
	}
	if _, err := value(older).Load(t.Context()); err == nil || !strings.Contains(err.Error(), newer.ids()) {
		t.Errorf("the older key alone: got %v", err)
	}
	first := m.get(crmPath)
	if err := value(both).Save(t.Context(), []byte("2")); err != nil || m.get(crmPath) == first {
		t.Errorf("the same nonce twice: %v", err)
	}
}

// TestKeysOfOneName: two keys may share the 8 digits that name them.
func TestKeysOfOneName(t *testing.T) {
	older, both := mustKeys(t, keyText(1)), mustKeys(t, keyText(2), keyText(1))
	both.list[0].id = older.list[0].id
	m := &memory{}
	if err := New(m, older).Value(crmPath, "crm").Save(t.Context(), []byte("1")); err != nil {
		t.Fatal(err)
	}
	if got, err := New(m, both).Value(crmPath, "crm").Load(t.Context()); err != nil || string(got) != "1" {
		t.Errorf("got %s, %v", got, err)
	}
}

// FuzzOpen: whatever stands in the storage, it is a value or it is unreadable.
func FuzzOpen(f *testing.F) {
	keys := mustKeys(f, keyText(1))
	bound := New(nil, keys).Value(crmPath, "crm").bound()
	for _, seed := range []string{
		stored1, stored1[:40], `{"v":1,"plain":{"n":1}}`, `{"v":1,"plain":null}`, `{"v":2}`, `{"v":1e400}`,
		`{"v":1,"key":"","sealed":""}`, "null", "", "\x00", `{"v":1,"Plain":1,"PLAIN":2}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		value, err := (*Keys)(nil).open(raw, bound)
		if err == nil && !json.Valid(value) {
			t.Errorf("plain: %q is no JSON", value)
		}
		if err != nil && value != nil {
			t.Errorf("%q beside %v", value, err)
		}
		if _, err := keys.open(raw, bound); err == nil && !bytes.Contains(raw, []byte("sealed")) {
			var doc stored // a name in another case is the same to the parser
			if json.Unmarshal(raw, &doc) != nil || doc.Sealed == nil {
				t.Error("with keys, a plain value was taken")
			}
		}
	})
}
