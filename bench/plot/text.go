package plot

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// bold is how much wider bold text is.
const bold = 1.15

// measure estimates the width of a text. The fonts of readers differ, so it is
// made for a wide one.
func measure(s string, size float64) float64 {
	ems := 0.0
	for _, r := range s {
		switch {
		case strings.ContainsRune("ijl.,:;'|!I()[] ", r):
			ems += 0.34
		case strings.ContainsRune("ftr-/", r):
			ems += 0.42
		case strings.ContainsRune("mwMW@%", r):
			ems += 0.92
		case r >= 'A' && r <= 'Z':
			ems += 0.7
		case r >= 0x1100: // beyond the alphabets: as wide as high
			ems++
		default:
			ems += 0.59
		}
	}
	return ems * size
}

// wrap breaks a text into lines of a width, at blanks if it can. What does not
// fit into the last line ends in an ellipsis.
func wrap(s string, size, width float64, most int) []string {
	var out []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		longer := word
		if line != "" {
			longer = line + " " + word
		}
		if line != "" && measure(longer, size) > width && len(out)+1 < most {
			out = append(out, line)
			longer = word
		}
		line = longer
	}
	return append(out, cut(line, size, width))
}

// cut shortens a line to a width.
func cut(s string, size, width float64) string {
	if measure(s, size) <= width {
		return s
	}
	for s != "" && measure(s+"…", size) > width {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimRight(s, " ,") + "…"
}

// tickText writes a figure at an axis: 0.5, 10, 1k, 2.5k, 1M.
func tickText(v float64) string {
	unit := ""
	switch a := math.Abs(v); {
	case a >= 1e9:
		v, unit = v/1e9, "G"
	case a >= 1e6:
		v, unit = v/1e6, "M"
	case a >= 1e3:
		v, unit = v/1e3, "k"
	}
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 6, 64), 64)
	return minus(strconv.FormatFloat(r, 'f', -1, 64)) + unit
}

// sizeText writes a number of bytes at an axis: 64 KiB, if it is whole.
func sizeText(v float64) string {
	for _, unit := range []struct {
		name string
		of   float64
	}{{" GiB", 1 << 30}, {" MiB", 1 << 20}, {" KiB", 1 << 10}} {
		if v >= unit.of && math.Mod(v, unit.of) == 0 {
			return tickText(v/unit.of) + unit.name
		}
	}
	return tickText(v)
}

// decimals is how many digits after the point the figures of one plot are
// written with, so that they can be compared at a glance.
func decimals(figures []float64) int {
	highest, whole := 0.0, true
	for _, v := range figures {
		highest = max(highest, math.Abs(v))
		whole = whole && v == math.Trunc(v)
	}
	switch {
	case whole || highest >= 100 || highest == 0:
		return 0
	case highest >= 10:
		return 1
	case highest >= 1:
		return 2
	}
	return 2 - int(math.Floor(math.Log10(highest)))
}

// figureText writes a figure with so many digits after the point, with commas
// between thousands. One that would look like zero and is not keeps two digits
// that count.
func figureText(v float64, digits int) string {
	if v != 0 && math.Abs(v) < 0.5*math.Pow10(-digits) {
		digits = 1 - int(math.Floor(math.Log10(math.Abs(v))))
	}
	s := strconv.FormatFloat(math.Abs(v), 'f', digits, 64)
	whole, rest, point := strings.Cut(s, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		whole += "." + rest
	}
	if v < 0 {
		return "−" + whole
	}
	return whole
}

// minus makes the hyphen of a negative figure a minus.
func minus(s string) string { return strings.Replace(s, "-", "−", 1) }
