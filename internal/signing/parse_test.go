package signing

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// wrapped is PKCS#8 of any algorithm, with nothing useful in it.
func wrapped(t *testing.T, algorithm asn1.ObjectIdentifier, parameters any) []byte {
	t.Helper()
	id := pkix.AlgorithmIdentifier{Algorithm: algorithm}
	if parameters != nil {
		raw, err := asn1.Marshal(parameters)
		if err != nil {
			t.Fatal(err)
		}
		id.Parameters = asn1.RawValue{FullBytes: raw}
	}
	der, err := asn1.Marshal(struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
		Key       []byte
	}{0, id, bytes.Repeat([]byte{7}, 57)})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func certificate(t *testing.T) []byte {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	key := testKeys()["P-256"]
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return block("CERTIFICATE", der)
}

func publicKey(t *testing.T, name string) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(testKeys()[name].Public())
	if err != nil {
		t.Fatal(err)
	}
	return block("PUBLIC KEY", der)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

var (
	oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10}
	oidEC        = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
)

func TestParseKey(t *testing.T) {
	bag := []byte("Bag Attributes\n    localKeyID: 01\nKey Attributes: <No Attributes>\n")
	parameters := block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	der := func(content []byte) []byte { b, _ := pem.Decode(content); return b.Bytes }
	for name, test := range map[string]struct {
		content []byte
		key     string
		kid     string
		issuer  string
	}{
		"PKCS#8 RSA":                 {content: pkcs8(t, "RSA"), key: "RSA"},
		"PKCS#8 P-256":               {content: pkcs8(t, "P-256"), key: "P-256"},
		"PKCS#8 P-384":               {content: pkcs8(t, "P-384"), key: "P-384"},
		"PKCS#8 P-521":               {content: pkcs8(t, "P-521"), key: "P-521"},
		"PKCS#8 Ed25519":             {content: pkcs8(t, "Ed25519"), key: "Ed25519"},
		"PKCS#1":                     {content: pkcs1("RSA"), key: "RSA"},
		"SEC 1":                      {content: sec1(t, "P-384"), key: "P-384"},
		"SEC 1 after its parameters": {content: join(parameters, sec1(t, "P-256")), key: "P-256"},
		"PKCS#8 by another name":     {content: block("RSA PRIVATE KEY", der(pkcs8(t, "RSA"))), key: "RSA"},
		"PKCS#1 by another name":     {content: block("PRIVATE KEY", der(pkcs1("RSA"))), key: "RSA"},
		"after a certificate":        {content: join(certificate(t), pkcs8(t, "P-256")), key: "P-256"},
		"before a certificate":       {content: join(pkcs8(t, "P-256"), certificate(t)), key: "P-256"},
		"out of PKCS#12":             {content: join(bag, pkcs8(t, "RSA"), bag, certificate(t)), key: "RSA"},
		"CRLF":                       {content: bytes.ReplaceAll(pkcs8(t, "RSA"), []byte("\n"), []byte("\r\n")), key: "RSA"},
		"blank lines around":         {content: join([]byte("\n \n"), pkcs8(t, "P-256"), []byte("\n\t\n")), key: "P-256"},
		"no newline at the end":      {content: bytes.TrimSpace(pkcs8(t, "P-256")), key: "P-256"},
		"byte order mark":            {content: join([]byte("\ufeff"), pkcs8(t, "P-256")), key: "P-256"},
		"JWK RSA":                    {content: jwk(t, "RSA", nil), key: "RSA"},
		"JWK P-256":                  {content: jwk(t, "P-256", nil), key: "P-256"},
		"JWK P-384":                  {content: jwk(t, "P-384", nil), key: "P-384"},
		"JWK P-521":                  {content: jwk(t, "P-521", nil), key: "P-521"},
		"JWK Ed25519":                {content: jwk(t, "Ed25519", nil), key: "Ed25519"},
		"JWK with a newline":         {content: join([]byte(" "), jwk(t, "P-256", nil), []byte("\n")), key: "P-256"},
		"JWK with a mark":            {content: join([]byte("\ufeff"), jwk(t, "P-256", nil)), key: "P-256"},
		"JWK with all else":          {content: jwk(t, "P-256", map[string]any{"kid": "k1", "use": "sig", "alg": "ES256", "iat": 17, "key_ops": []string{"sign"}}), key: "P-256", kid: "k1"},
		"JWK RSA without dp, dq, qi": {content: jwk(t, "RSA", map[string]any{"dp": nil, "dq": nil, "qi": nil}), key: "RSA"},
		"Google": {content: encode(t, map[string]any{
			"type": "service_account", "private_key": string(pkcs8(t, "RSA")), "private_key_id": "f00", "client_email": "app@project.example.com",
		}), key: "RSA", kid: "f00", issuer: "app@project.example.com"},
		"Google, the least": {content: encode(t, map[string]any{"type": "service_account", "private_key": string(pkcs8(t, "RSA"))}), key: "RSA"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ParseKey(test.content)
			if err != nil {
				t.Fatal(err)
			}
			want, err := newKey(testKeys()[test.key])
			if err != nil {
				t.Fatal(err)
			}
			if key.Thumbprint() != want.Thumbprint() || key.KeyID() != test.kid || key.Issuer() != test.issuer {
				t.Errorf("the key is %s, %q, %q, expected %s, %q, %q", key.Thumbprint(), key.KeyID(), key.Issuer(), want.Thumbprint(), test.kid, test.issuer)
			}
			alg, err := key.Algorithm("", nil)
			if err != nil {
				t.Fatal(err)
			}
			token, err := key.Sign(map[string]any{"sub": "app"}, Options{Algorithm: alg})
			if err != nil {
				t.Fatal(err)
			}
			verify(t, token, testKeys()[test.key].Public(), alg)
		})
	}
}

func TestParseKeyPEMErrors(t *testing.T) {
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519DER, err := x509.MarshalPKCS8PrivateKey(x25519)
	if err != nil {
		t.Fatal(err)
	}
	good := string(pkcs8(t, "P-256"))
	lines := strings.Split(good, "\n")
	der, _ := pem.Decode([]byte(good))
	legacy := pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: []byte("secret stuff"),
		Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00112233445566778899AABBCCDDEEFF"},
	})
	for name, test := range map[string]struct {
		content []byte
		want    []string
	}{
		"empty":                    {nil, []string{"empty", "PEM", "JWK"}},
		"blanks":                   {[]byte(" \n\t"), []string{"empty", "PEM", "JWK"}},
		"garbage":                  {[]byte("s3cr3t-hunter2-s3cr3t-hunter2"), []string{"neither PEM nor JSON", "PEM", "JWK"}},
		"binary garbage":           {[]byte{0, 1, 2, 255}, []string{"neither PEM nor JSON"}},
		"DER, and a blank's byte":  {[]byte{0x30, 1, '\n'}, []string{"binary", "DER"}},
		"DER":                      {der.Bytes, []string{"binary", "DER", "openssl pkey -inform DER -in", "openssl pkcs12"}},
		"encrypted":                {block("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}), []string{"encrypted", "openssl pkey -in <file> -out <new file>"}},
		"encrypted, legacy":        {legacy, []string{"encrypted", "openssl pkey -in <file> -out <new file>"}},
		"certificate":              {certificate(t), []string{"a certificate in place of a private key", "BEGIN PRIVATE KEY"}},
		"two certificates":         {join(certificate(t), certificate(t)), []string{"a certificate in place of a private key"}},
		"certificate request":      {block("CERTIFICATE REQUEST", []byte{0x30, 0}), []string{"a certificate request in place of a private key"}},
		"public key":               {publicKey(t, "RSA"), []string{"a public key in place of a private key"}},
		"public key, PKCS#1":       {block("RSA PUBLIC KEY", []byte{0x30, 0}), []string{"a public key in place of a private key"}},
		"parameters alone":         {block("EC PARAMETERS", []byte{6, 0}), []string{"PEM without a private key"}},
		"another block":            {block("SOMETHING", []byte("x")), []string{"PEM without a private key"}},
		"OpenSSH":                  {block("OPENSSH PRIVATE KEY", []byte("openssh-key-v1")), []string{"OpenSSH", "ssh-keygen -p -m PKCS8"}},
		"DSA":                      {block("DSA PRIVATE KEY", []byte{0x30, 0}), []string{"a DSA key", "expected RSA", "Ed25519"}},
		"DSA in PKCS#8":            {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, nil)), []string{"a DSA key", "expected RSA"}},
		"RSA-PSS":                  {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}, nil)), []string{"PSS", "expected RSA"}},
		"Ed448":                    {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 3, 101, 113}, nil)), []string{"Ed448", "expected RSA"}},
		"unknown in PKCS#8":        {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 2, 3, 4}, nil)), []string{"unknown type", "expected RSA"}},
		"X25519":                   {block("PRIVATE KEY", x25519DER), []string{"X25519", "signs nothing", "expected RSA"}},
		"P-224":                    {pkcs8(t, "P-224"), []string{"P-224", "P-256, P-384 or P-521"}},
		"P-224, SEC 1":             {sec1(t, "P-224"), []string{"P-224", "P-256, P-384 or P-521"}},
		"secp256k1":                {block("PRIVATE KEY", wrapped(t, oidEC, oidSecp256k1)), []string{"curve is another", "P-256, P-384 or P-521"}},
		"damaged SEC 1":            {block("EC PRIVATE KEY", []byte{0x30, 3, 2, 1, 1}), []string{"EC key that is damaged, or whose curve"}},
		"damaged PKCS#1":           {block("RSA PRIVATE KEY", []byte{0x30, 3, 2, 1, 1}), []string{"RSA key that is damaged, or too short"}},
		"damaged RSA in PKCS#8":    {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}, asn1.NullRawValue)), []string{"RSA key that is damaged, or too short"}},
		"damaged Ed25519":          {block("PRIVATE KEY", wrapped(t, asn1.ObjectIdentifier{1, 3, 101, 112}, nil)), []string{"damaged Ed25519"}},
		"RSA of 1024 bits":         {pkcs8(t, "RSA-1024"), []string{"1024 bits", "2048 or more"}},
		"RSA of 1024 bits, PKCS#1": {pkcs1("RSA-1024"), []string{"1024 bits", "2048 or more"}},
		"two keys":                 {join(pkcs8(t, "P-256"), pkcs8(t, "RSA")), []string{"several private keys", "expected one"}},
		"a key and an encrypted":   {join(pkcs8(t, "P-256"), legacy), []string{"several private keys"}},
		"text after it":            {[]byte(good + "trailing-text-trailing-text\n"), []string{"something after its last block"}},
		"a cut key after it":       {[]byte(good + strings.Join(lines[:2], "\n")), []string{"cut off or damaged"}},
		"a cut key before it":      {[]byte(strings.Join(lines[:2], "\n") + "\n" + good), []string{"cut off or damaged"}},
		"cut off":                  {[]byte(strings.Join(lines[:2], "\n")), []string{"cut off or damaged", "line breaks"}},
		"no line breaks":           {[]byte(strings.ReplaceAll(good, "\n", " ")), []string{"cut off or damaged", "line breaks"}},
		"line breaks as text":      {[]byte(strings.ReplaceAll(good, "\n", `\n`)), []string{"cut off or damaged", "line breaks"}},
		"not base64":               {[]byte(strings.Replace(good, "M", "*", 1)), []string{"cut off or damaged"}},
		"empty block":              {block("PRIVATE KEY", nil), []string{"damaged private key"}},
		"not ASN.1":                {block("PRIVATE KEY", []byte("hello")), []string{"damaged private key"}},
		"trailing data":            {block("PRIVATE KEY", append(bytes.Clone(der.Bytes), 0)), []string{"something after the private key"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseKey(test.content)
			checkError(t, err, string(test.content), test.want...)
		})
	}
}

func TestParseKeyJSONErrors(t *testing.T) {
	google := func(members map[string]any) []byte {
		object := map[string]any{"type": "service_account", "private_key": string(pkcs8(t, "RSA"))}
		maps.Copy(object, members)
		return encode(t, object)
	}
	for name, test := range map[string]struct {
		content []byte
		want    []string
	}{
		"public":               {encode(t, jose.JSONWebKey{Key: testKeys()["RSA"].Public()}), []string{"without its private part (d)", "private one"}},
		"public EC":            {jwk(t, "P-256", map[string]any{"d": nil}), []string{"without its private part (d)"}},
		"public Ed25519":       {jwk(t, "Ed25519", map[string]any{"d": nil}), []string{"without its private part (d)"}},
		"symmetric":            {[]byte(`{"kty":"oct","k":"c2VjcmV0LXN0dWZmLXNlY3JldC1zdHVmZg"}`), []string{"symmetric", "oct", "client_secret_jwt"}},
		"set":                  {encode(t, map[string]any{"keys": []any{jose.JSONWebKey{Key: testKeys()["P-256"]}}}), []string{"JWK Set", "one key", "keys"}},
		"list":                 {join([]byte("["), jwk(t, "P-256", nil), []byte("]")), []string{"a JSON list", "one key"}},
		"unknown kty":          {[]byte(`{"kty":"LMS","d":"AAAA"}`), []string{"kty", "RSA, EC and OKP"}},
		"kty a number":         {[]byte(`{"kty":1}`), []string{"kty"}},
		"kty an object":        {[]byte(`{"kty":{}}`), []string{"kty"}},
		"crv an object":        {[]byte(`{"kty":"EC","crv":{},"d":"AAAA"}`), []string{"crv"}},
		"no crv":               {jwk(t, "P-256", map[string]any{"crv": nil}), []string{"crv", "P-256"}},
		"secp256k1":            {jwk(t, "P-256", map[string]any{"crv": "secp256k1"}), []string{"crv", "P-256"}},
		"Ed448":                {jwk(t, "Ed25519", map[string]any{"crv": "Ed448"}), []string{"crv", "Ed25519"}},
		"X25519":               {jwk(t, "Ed25519", map[string]any{"crv": "X25519"}), []string{"crv", "Ed25519"}},
		"d a number":           {jwk(t, "P-256", map[string]any{"d": 12345678901234567}), []string{"whose d is not a string"}},
		"d null":               {[]byte(`{"kty":"OKP","crv":"Ed25519","d":null}`), []string{"whose d is not a string"}},
		"d not base64":         {jwk(t, "P-256", map[string]any{"d": "***not-base64-at-all***"}), []string{"a mistake", "base64"}},
		"d too short":          {jwk(t, "P-256", map[string]any{"d": "AAAA"}), []string{"a mistake", "length for d"}},
		"d zero":               {jwk(t, "P-256", map[string]any{"d": strings.Repeat("A", 43)}), []string{"a mistake", "d is out of range"}},
		"d of another key":     {jwk(t, "P-256", map[string]any{"d": strings.Repeat("A", 42) + "E"}), []string{"a mistake", "x and y do not belong to d"}},
		"Ed25519, another":     {jwk(t, "Ed25519", map[string]any{"d": strings.Repeat("A", 43)}), []string{"a mistake", "x does not match d"}},
		"no x":                 {jwk(t, "P-256", map[string]any{"x": nil}), []string{"a mistake", "missing X"}},
		"not on the curve":     {jwk(t, "P-256", map[string]any{"x": strings.Repeat("A", 43)}), []string{"a mistake", "not on declared curve"}},
		"RSA without p":        {jwk(t, "RSA", map[string]any{"p": nil}), []string{"a mistake", "missing P"}},
		"RSA with odd factors": {jwk(t, "RSA", map[string]any{"p": "AQAB"}), []string{"a mistake", "p * q != n"}},
		"RSA of 1024 bits":     {jwk(t, "RSA-1024", nil), []string{"1024 bits", "2048"}},
		"for encryption":       {jwk(t, "RSA", map[string]any{"use": "enc"}), []string{"use is not sig", "signatures"}},
		"alg of encryption":    {jwk(t, "RSA", map[string]any{"alg": "RSA-OAEP"}), []string{"alg does not fit", "RSA", "PS256"}},
		"alg of another curve": {jwk(t, "P-256", map[string]any{"alg": "ES384"}), []string{"alg does not fit", "P-256", "ES256"}},
		"alg a number":         {jwk(t, "P-256", map[string]any{"alg": 256}), []string{"whose alg is not a string"}},
		"x5c of nothing":       {jwk(t, "P-256", map[string]any{"x5c": []string{"AAAA"}}), []string{"a mistake", "x5c"}},
		"cut off":              {jwk(t, "P-256", nil)[:40], []string{"cut off"}},
		"trailing data":        {join(jwk(t, "P-256", nil), []byte("x")), []string{"followed by something else"}},
		"two keys":             {join(jwk(t, "P-256", nil), []byte("\n"), jwk(t, "P-384", nil)), []string{"followed by something else", "one object"}},
		"another object":       {[]byte(`{"client_secret":"s3cr3t-hunter2-s3cr3t-hunter2"}`), []string{"neither a JWK", "kty", "service_account"}},
		"an empty object":      {[]byte(`{}`), []string{"neither a JWK"}},
		"Google, a user":       {[]byte(`{"type":"authorized_user","refresh_token":"r-0123456789-0123456789"}`), []string{"without a private key", "service_account"}},
		"Google, federated":    {[]byte(`{"type":"external_account"}`), []string{"without a private key", "service_account"}},
		"Google, no key":       {google(map[string]any{"private_key": nil}), []string{"service account", "without private_key"}},
		"Google, key a list":   {google(map[string]any{"private_key": []string{"x"}}), []string{"without private_key"}},
		"Google, no PEM":       {google(map[string]any{"private_key": "s3cr3t-hunter2-s3cr3t"}), []string{"private_key of a Google service account", "without a private key"}},
		"Google, too short":    {google(map[string]any{"private_key": string(pkcs8(t, "RSA-1024"))}), []string{"private_key of a Google service account", "1024"}},
		"Google, encrypted":    {google(map[string]any{"private_key": string(block("ENCRYPTED PRIVATE KEY", []byte{0x30, 0}))}), []string{"private_key", "encrypted", "openssl"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseKey(test.content)
			checkError(t, err, string(test.content), test.want...)
		})
	}
}

// FuzzParseKey: nothing panics, what is taken can sign, and no error shows what
// was read.
func FuzzParseKey(f *testing.F) {
	for _, name := range []string{"P-256", "Ed25519"} {
		f.Add(pkcs8(f, name))
		f.Add(jwk(f, name, map[string]any{"kid": "k1", "alg": "ES256", "use": "sig"}))
	}
	f.Add(pkcs1("RSA"))
	f.Add(jwk(f, "RSA", nil))
	f.Add(sec1(f, "P-384"))
	f.Add(encode(f, map[string]any{"type": "service_account", "private_key": string(pkcs8(f, "P-256"))}))
	for _, odd := range []string{"", "{", "[", "{}", "null", `{"kty":[]}`, `{"kty":"EC","crv":"P-256","d":"","x":"","y":""}`, `{"keys":[]}`, "-----BEGIN ", "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "0\x00", "\ufeff"} {
		f.Add([]byte(odd))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		key, err := ParseKey(content)
		if err != nil {
			checkError(t, err, string(content))
			return
		}
		alg, err := key.Algorithm("", nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := key.Sign(map[string]any{}, Options{Algorithm: alg, KeyID: key.KeyID()})
		if err != nil {
			t.Fatal(err)
		}
		if public := key.PublicJWK(); len(key.Thumbprint()) != 43 || !public.IsPublic() {
			t.Errorf("the key is %+v", public)
		} else {
			verify(t, token, public.Key, alg)
		}
	})
}
