package caddymodule

import (
	"strings"
	"testing"
)

// TestBadRejectedOn: what is no status of a refusal.
func TestBadRejectedOn(t *testing.T) {
	var rows []badConfig
	for _, value := range []string{"4xx", "unauthorized", "401,403", "{env.STATUS}", "0x191", "401.0"} {
		rows = append(rows, badConfig{"rejected_on " + value, good + "rejected_on " + value + " " + mark, []string{"rejected_on", "'" + value + "'", "401"}})
	}
	for _, value := range []string{"200", "302", "399", "600", "-1", "0"} {
		rows = append(rows, badConfig{"rejected_on " + value, good + "rejected_on 401 " + value + " " + mark, []string{"rejected_on", "'" + value + "'", "400 to 599"}})
	}
	rows = append(rows,
		badConfig{"rejected_on with nothing in quotes", good + `rejected_on "" ` + mark, []string{"'rejected_on'", "argument"}},
		badConfig{"rejected_on the same twice", good + "rejected_on 401 403 401 " + mark, []string{"rejected_on", "401", "twice"}},
	)
	runCredentialRows(t, rows)
	for _, row := range []badConfig{
		{"rejected_on 200 in JSON", `[200]`, []string{"rejected_on", "200", "400 to 599"}},
		{"rejected_on twice in JSON", `[401, 401]`, []string{"rejected_on", "401", "twice"}},
		{"rejected_on words in JSON", `["401"]`, []string{"rejected_on"}},
	} {
		for _, place := range jsonPlaces {
			t.Run(row.name+"/"+place.name, func(t *testing.T) {
				loadFails(t, place.config("{"+goodJSON+`, "rejected_on": `+row.text+"}"), row.want...)
			})
		}
	}
}

// TestBadReplay: the options of the transport's replay.
func TestBadReplay(t *testing.T) {
	rows := []badConfig{
		{"replay alone", "replay " + mark, []string{"'replay'", "needs a block", "max_body", "methods"}},
		{"replay with an empty block", "replay {\n} " + mark, []string{"'replay'", "needs a block", "max_body"}},
		{"replay on", "replay on " + mark, []string{"replay", "'on'", "off", "block"}},
		{"replay off twice", "replay off\nreplay off " + mark, []string{"'replay'", "twice"}},
		{"replay off and more", "replay off 1 " + mark, []string{"'replay'", "argument"}},
		{"replay off with a block", "replay off {\nmax_body 1 " + mark + "\n}", []string{"'replay'", "no block", "max_body"}},
		{"unknown option in replay", "replay {\nbogus 1 " + mark + "\n}", []string{"'bogus'", "replay", "max_body", "methods"}},
		{"max_body twice", "replay {\nmax_body 1\nmax_body 2 " + mark + "\n}", []string{"'max_body'", "twice"}},
		{"max_body without a size", "replay {\nmax_body " + mark + "\n}", []string{"'max_body'", "argument"}},
		{"max_body with two", "replay {\nmax_body 1 MiB " + mark + "\n}", []string{"'max_body'", "argument"}},
		{"max_body too large", "replay {\nmax_body 17MiB " + mark + "\n}", []string{"max_body", "17825792", "0 to 16MiB"}},
		{"methods without one", "replay {\nmethods " + mark + "\n}", []string{"'methods'", "argument"}},
		{"methods twice", "replay {\nmethods GET\nmethods PUT " + mark + "\n}", []string{"'methods'", "twice"}},
		{"the same method twice", "replay {\nmethods GET PUT GET " + mark + "\n}", []string{"methods", "GET", "twice"}},
		{"a method in small letters", "replay {\nmax_body 1\nmethods GET put " + mark + "\n}", []string{"methods", "'put'", "small letters", "PUT"}},
		{"CONNECT", "replay {\nmethods CONNECT " + mark + "\n}", []string{"methods", "CONNECT", "never"}},
	}
	for _, value := range []string{"-1", "much", "1XB", "{env.SIZE}", "99999999999999999999", "1e9", "16EiB"} {
		rows = append(rows, badConfig{"max_body " + value, "replay {\nmax_body " + value + " " + mark + "\n}", []string{"max_body", "'" + value + "'", "64KiB"}})
	}
	for _, value := range []string{"GET,PUT", "{method}", `"GET PUT"`, "GET/"} {
		rows = append(rows, badConfig{"methods " + strings.ReplaceAll(value, "/", "|"), "replay {\nmethods " + value + " " + mark + "\n}", []string{"methods", "not a method", "GET"}})
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { adaptFails(t, routePlaces[1].config("crm", row.text), row.want...) })
	}
	t.Run("only in the transport", func(t *testing.T) {
		adaptFails(t, routePlaces[0].config("crm", "replay off "+mark), "'replay'", "upstream_auth", "wait")
	})
	for _, row := range []badConfig{
		{"off and more", `{"off": true, "max_body": 1}`, []string{"crm", "replay", "off", "max_body"}},
		{"max_body below zero", `{"max_body": -1}`, []string{"crm", "replay max_body", "-1", "0 to 16MiB"}},
		{"max_body too large", `{"max_body": 16777217}`, []string{"crm", "replay max_body", "16777217", "0 to 16MiB"}},
		{"max_body in words", `{"max_body": "64KiB"}`, []string{"max_body"}},
		{"no method", `{"methods": [""]}`, []string{"crm", "replay methods", "not a method"}},
		{"small letters", `{"methods": ["get"]}`, []string{"crm", "replay methods", "'get'", "GET"}},
		{"unknown option", `{"bogus": 1}`, []string{"bogus", "unknown field"}},
	} {
		t.Run(row.name+" in JSON", func(t *testing.T) {
			loadFails(t, jsonTransport(`"127.0.0.1:9000"`, `"credential": "crm", "replay": `+row.text), row.want...)
		})
	}
}

// TestGoodRejection are the last values that are right.
func TestGoodRejection(t *testing.T) {
	for _, options := range []string{"rejected_on 401", "rejected_on 400 599", "rejected_on 401 403 500"} {
		for _, place := range credentialPlaces {
			t.Run(options+"/"+place.name, func(t *testing.T) { loads(t, place.config(good+options)) })
		}
	}
	for _, options := range []string{
		"replay off", "replay {\nmax_body 0\n}", "replay {\nmax_body 16MiB\n}", "replay {\nmax_body 64KB\nmethods GET\n}",
		"replay {\nmax_body 1.5MB\n}", "replay {\nmax_body 100\n}", "replay {\nmethods GET POST M-SEARCH\n}",
	} {
		t.Run(strings.Join(strings.Fields(options), " "), func(t *testing.T) { loads(t, routePlaces[1].config("crm", options)) })
	}
}
