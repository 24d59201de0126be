package browser

import (
	"image"
	"image/color"
	"slices"
)

// Of the colours of a small picture, most are those that it has most of, and
// the rest those that are least like any other, such as that of a small sign.
const (
	frequent = 160
	rare     = 96
)

// fewColours draws a picture with 256 colours, so that its file is small: what
// is lost is in the edges of letters.
func fewColours(src image.Image) *image.Paletted {
	bounds := src.Bounds()
	count := make(map[color.RGBA]int)
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(src.At(x, y)).(color.RGBA) }
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			count[at(x, y)]++
		}
	}
	all := make([]color.RGBA, 0, len(count))
	for c := range count {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b color.RGBA) int {
		if d := count[b] - count[a]; d != 0 {
			return d
		}
		return number(a) - number(b) // the same picture gives the same bytes
	})
	var palette color.Palette
	index := make(map[color.RGBA]uint8, len(all)) // the nearest so far
	far := make([]int, len(all))                  // how far that is
	for i := range far {
		far[i] = 1 << 30
	}
	choose := func(chosen color.RGBA) {
		for i, c := range all {
			if d := distance(c, chosen); d < far[i] {
				far[i], index[c] = d, uint8(len(palette))
			}
		}
		palette = append(palette, chosen)
	}
	for _, c := range all[:min(len(all), frequent)] {
		choose(c)
	}
	for range min(len(all)-len(palette), rare) {
		worst := 0
		for i := range all {
			if far[i] > far[worst] {
				worst = i
			}
		}
		choose(all[worst])
	}
	dst := image.NewPaletted(bounds, palette)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			dst.SetColorIndex(x, y, index[at(x, y)])
		}
	}
	return dst
}

func number(c color.RGBA) int { return int(c.R)<<16 | int(c.G)<<8 | int(c.B) }

func distance(a, b color.RGBA) int {
	square := func(a, b uint8) int { return (int(a) - int(b)) * (int(a) - int(b)) }
	return square(a.R, b.R) + square(a.G, b.G) + square(a.B, b.B)
}
