package signing

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// ParseKey reads a private key: PEM (PKCS#8, PKCS#1 for RSA, SEC 1 for EC), a
// JWK, or the JSON file of a Google service account. An error says what the
// content is and what to do about it.
func ParseKey(content []byte) (*Key, error) {
	text := bytes.TrimSpace(bytes.TrimPrefix(content, []byte("\ufeff"))) // an editor's mark
	switch {
	case len(text) == 0:
		return nil, fmt.Errorf("empty: expected %s", knownForms)
	case text[0] == '{' || text[0] == '[':
		return parseJSON(text)
	case bytes.Contains(text, []byte(pemBegin)):
		private, err := parsePEM(text)
		if err != nil {
			return nil, err
		}
		return newKey(private)
	case isDER(content):
		return nil, errors.New("binary (DER or PKCS#12): write it as PEM, with openssl pkey -inform DER -in <file> -out <new file>, or openssl pkcs12 -in <file> -nocerts -nodes -out <new file>")
	}
	return nil, fmt.Errorf("neither PEM nor JSON: expected %s", knownForms)
}

const (
	knownForms = "a private key in PEM, or as a JWK"
	pemBegin   = "-----BEGIN "
)

// isDER tells whether content is one ASN.1 sequence.
func isDER(content []byte) bool {
	var raw asn1.RawValue
	_, err := asn1.Unmarshal(content, &raw)
	return err == nil && raw.Tag == asn1.TagSequence && raw.IsCompound
}

// parsePEM finds the one private key in PEM. What is public may stand beside it:
// many tools write a certificate into the same file.
func parsePEM(content []byte) (any, error) {
	begins := bytes.Count(content, []byte(pemBegin))
	var private *pem.Block
	other := ""
	for {
		block, rest := pem.Decode(content)
		if block == nil {
			break
		}
		begins--
		content = rest
		switch {
		case !strings.HasSuffix(block.Type, "PRIVATE KEY"):
			other = block.Type // such as the parameters that openssl writes before an EC key
		case private != nil:
			return nil, errors.New("several private keys: expected one, so remove the others")
		default:
			private = block
		}
	}
	switch {
	case begins > 0:
		return nil, errors.New("PEM that is cut off or damaged: expected each block to begin and end on a line of its own, with its line breaks kept")
	case private == nil:
		return nil, noPrivateKey(other)
	case len(bytes.TrimSpace(content)) > 0:
		return nil, errors.New("PEM with something after its last block: expected nothing but the key")
	}
	return parseBlock(private)
}

// noPrivateKey says what is there in place of a private key.
func noPrivateKey(found string) error {
	what := "PEM without a private key"
	switch {
	case strings.HasSuffix(found, "CERTIFICATE"):
		what = "a certificate in place of a private key"
	case strings.HasSuffix(found, "CERTIFICATE REQUEST"):
		what = "a certificate request in place of a private key"
	case strings.HasSuffix(found, "PUBLIC KEY"):
		what = "a public key in place of a private key"
	}
	return fmt.Errorf("%s: expected the private key that belongs to it (BEGIN PRIVATE KEY)", what)
}

// parseBlock reads the block of a private key.
func parseBlock(block *pem.Block) (any, error) {
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"): // RFC 1421 §4.6.1.1
		return nil, errors.New("an encrypted private key: decrypt it with openssl pkey -in <file> -out <new file>, and let nobody else read that file")
	case block.Type == "OPENSSH PRIVATE KEY":
		return nil, errors.New("a private key in the form of OpenSSH: expected PKCS#8, so convert a copy of it with ssh-keygen -p -m PKCS8 -f <copy>")
	case block.Type == "DSA PRIVATE KEY":
		return nil, fmt.Errorf("a DSA key: expected %s", knownKeys)
	}
	der := block.Bytes
	var whole asn1.RawValue
	rest, err := asn1.Unmarshal(der, &whole)
	if err != nil {
		return nil, errors.New("PEM with a damaged private key in it: copy the file anew")
	}
	if len(rest) > 0 {
		return nil, errors.New("PEM with something after the private key in its block: copy the file anew")
	}
	// Not by the block's name alone: some tools write PKCS#8 under another.
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, unsupported(block)
	}
	return key, nil
}

const (
	badEC  = "an EC key that is damaged, or whose curve is another or not named"
	badRSA = "an RSA key that is damaged, or too short"
)

// keyAlgorithms are those of PKCS#8, for what crypto/x509 does not read.
var keyAlgorithms = map[string]string{
	"1.2.840.113549.1.1.1":  badRSA,
	"1.2.840.10045.2.1":     badEC,
	"1.3.101.112":           "a damaged Ed25519 key",
	"1.2.840.10040.4.1":     "a DSA key",
	"1.2.840.113549.1.1.10": "an RSA key whose type binds it to PSS",
	"1.3.101.113":           "an Ed448 key",
}

// unsupported says what a key is that cannot be read.
func unsupported(block *pem.Block) error {
	what := "a key of an unknown type"
	switch block.Type {
	case "EC PRIVATE KEY":
		what = badEC
	case "RSA PRIVATE KEY":
		what = badRSA
	}
	var head struct {
		Version   int
		Algorithm pkix.AlgorithmIdentifier
	}
	if _, err := asn1.Unmarshal(block.Bytes, &head); err == nil {
		if known, ok := keyAlgorithms[head.Algorithm.Algorithm.String()]; ok {
			what = known
		}
	}
	return fmt.Errorf("%s: expected %s", what, knownKeys)
}
