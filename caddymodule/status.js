"use strict";
// Keeps the page as it would be if it were loaded again: every two seconds it
// is, and what has changed is put in. Nothing else is known here.
(() => {
	const every = 2000, most = 30000;
	const byID = id => document.getElementById(id);
	const pulse = byID("pulse"), pause = byID("pause"), lost = byID("lost"), announcer = byID("announcer");
	let paused = false, misses = 0, timer = 0, asking = null;
	let reached = Date.now(); // when the page was last read, by this clock
	let skew = 0; // how far the server's clock is ahead of this one

	// spans of time in words, as in status_words.go
	const count = (n, unit) => n === 1 ? "1 " + unit : n + " " + unit + "s";
	const span = ms => {
		const s = Math.floor(ms / 1000);
		if (s < 120) return count(s, "second");
		if (s < 7200) return count(Math.floor(s / 60), "minute");
		if (s < 172800) return count(Math.floor(s / 3600), "hour");
		return count(Math.floor(s / 86400), "day");
	};
	const from = ms => Math.abs(ms) < 1000 ? "now" : ms > 0 ? "in " + span(ms) : span(-ms) + " ago";
	const clock = t => {
		const time = t.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23"});
		if (t.toDateString() === new Date(Date.now() + skew).toDateString()) return time;
		return t.toLocaleDateString([], {day: "numeric", month: "short"}) + " " + time.slice(0, 5);
	};
	const set = (node, text) => { if (node.textContent !== text) node.textContent = text; };

	// tick writes times as they are now, in the reader's own zone.
	const tick = root => {
		const now = Date.now() + skew;
		for (const t of root.querySelectorAll("time[data-span]")) set(t, from(Date.parse(t.dateTime) - now));
		for (const t of root.querySelectorAll("time[data-clock]")) set(t, clock(new Date(t.dateTime)));
		for (const life of root.querySelectorAll("[data-from]")) {
			const start = +life.dataset.from, end = +life.dataset.to;
			const part = (Math.min(Math.max((now - start) / Math.max(end - start, 1), 0), 1) * 100).toFixed(2) + "%";
			life.querySelector(".gone").setAttribute("width", part);
			life.querySelector(".now").setAttribute("x", part);
		}
	};
	const adjust = root => { skew = Date.parse(root.getElementById("overview").dataset.now) - Date.now(); };

	// morph makes one node like another and leaves alone what is the same, so
	// that focus, selection, scroll and what is unfolded stay.
	const keyOf = n => n.nodeType === 1 ? n.id || n.dataset.part || "" : "";
	const morph = (have, want) => {
		if (have.nodeType !== 1) {
			if (have.data !== want.data) have.data = want.data;
			return;
		}
		for (const a of want.attributes) if (have.getAttribute(a.name) !== a.value) have.setAttribute(a.name, a.value);
		for (const a of [...have.attributes]) {
			if (!want.hasAttribute(a.name) && !(a.name === "open" && have.nodeName === "DETAILS")) have.removeAttribute(a.name);
		}
		let at = have.firstChild;
		for (const next of [...want.childNodes]) {
			const key = keyOf(next);
			let old = at;
			if (key) old = [...have.childNodes].find(n => keyOf(n) === key);
			else while (old && keyOf(old)) old = old.nextSibling;
			if (!old || old.nodeName !== next.nodeName) {
				have.insertBefore(document.importNode(next, true), at);
				continue;
			}
			if (old === at) at = at.nextSibling;
			else have.insertBefore(old, at);
			morph(old, next);
		}
		while (at) {
			const gone = at;
			at = at.nextSibling;
			gone.remove();
		}
	};

	const show = page => {
		const focused = document.activeElement;
		const states = new Map([...document.querySelectorAll("article")].map(a => [a.id, a.dataset.state]));
		const news = [...page.querySelectorAll("article")].filter(a => states.get(a.id) !== a.dataset.state).map(a => a.dataset.news);
		for (const what of ["main", "footer"]) morph(document.querySelector(what), page.querySelector(what));
		set(byID("zone"), zone);
		set(document.querySelector("title"), page.title);
		const icon = document.querySelector("link[rel=icon]"), wanted = page.querySelector("link[rel=icon]");
		if (icon.href !== wanted.href) icon.href = wanted.href;
		if (focused !== document.activeElement && focused.isConnected) focused.focus({preventScroll: true});
		if (misses) news.unshift("The proxy is reached again.");
		if (news.length) announcer.textContent = news.join(" ");
	};

	const read = async () => {
		asking = new AbortController();
		const late = setTimeout(() => asking.abort(), 10000);
		try {
			const res = await fetch(location.pathname + location.search, {headers: {Accept: "text/html"}, cache: "no-store", redirect: "error", signal: asking.signal});
			const page = new DOMParser().parseFromString(await res.text(), "text/html");
			if (!page.getElementById("overview")) throw new Error("HTTP " + res.status);
			return page;
		} finally {
			clearTimeout(late);
		}
	};

	const poll = async () => {
		const began = performance.now();
		try {
			const page = await read();
			if (paused) return;
			adjust(page);
			tick(page);
			show(page);
			misses = 0;
			reached = Date.now();
			lost.hidden = true;
			pulse.textContent = "Live";
		} catch (e) {
			if (paused || document.hidden) return;
			misses++;
			pulse.textContent = "Not live";
			lost.textContent = "The proxy has not been reached since " + clock(new Date(reached)) + ". What stands below is what it said then.";
			if (lost.hidden) announcer.textContent = lost.textContent;
			lost.hidden = false;
		} finally {
			// a page that takes long is asked for less often
			plan(misses ? Math.min(every * 2 ** (misses - 1), most) : Math.min(Math.max(every, 20 * (performance.now() - began)), most));
		}
	};
	const plan = ms => {
		clearTimeout(timer);
		if (!paused && !document.hidden) timer = setTimeout(poll, ms);
	};

	const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "your time zone";
	pause.addEventListener("click", () => {
		paused = !paused;
		pause.textContent = paused ? "Resume" : "Pause";
		pulse.textContent = paused ? "Paused" : "Live";
		plan(0);
	});
	document.addEventListener("visibilitychange", () => plan(0));
	adjust(document);
	set(byID("zone"), zone);
	tick(document);
	setInterval(() => { if (!paused && !document.hidden) tick(document); }, 1000);
	byID("live").hidden = false;
	plan(every);
})();
