package advice

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/oauth"
	"github.com/caddy-upstream-auth/caddy-upstream-auth/internal/token"
)

// ofRefreshToken is what can be wrong with a refresh token, or with where it is
// stored.
func ofRefreshToken(f *oauth.Failure, k Facts) (Advice, bool) {
	switch {
	case errors.Is(f.Err, token.ErrLoginRequired):
		a := Advice{Wrong: token.ErrLoginRequired.Error() + ", and a token cannot be had without one", Do: k.login(), Topic: loginRequired}
		if text := f.Err.Error(); text != token.ErrLoginRequired.Error() { // the configured one cannot be read
			a.Wrong, a.Do = text, remedy(f.Err, k)
		}
		return a, true
	case errors.Is(f.Err, token.ErrEnded):
		a := Advice{
			Wrong: "the server takes the refresh token no more (" + reason(f) + ")",
			Do:    k.login() + "; the new one is used within seconds, without a reload",
			Topic: loginRequired,
		}
		if errors.Is(f.Err, token.ErrAnswerLost) {
			a.Wrong += ", after the answer to an earlier refresh was lost"
		}
		return a, true
	case errors.Is(f.Err, token.ErrUnreadable):
		return Advice{Wrong: f.Err.Error(), Do: "mend the cause, or " + k.login() + ", which keeps what is stored now beside it", Topic: storageTopic}, true
	case errors.Is(f.Err, token.ErrStorage):
		return ofStorage(f, k), true
	case errors.Is(f.Err, token.ErrOvertaken):
		return Advice{
			Wrong: token.ErrOvertaken.Error(),
			Do:    "it mends itself: the newer refresh token is used from now on; if it comes often, this machine or container is starved or suspended: look at its limits of CPU and memory",
			Topic: storageTopic,
		}, true
	case errors.Is(f.Err, token.ErrAnswerLost):
		return ofLostAnswer(f, k), true
	}
	return Advice{}, false
}

// ofStorage is a storage that fails. Its own words stay in the log, for a
// database's may hold more than is good.
func ofStorage(f *oauth.Failure, k Facts) Advice {
	a := Advice{Wrong: token.ErrStorage.Error(), Topic: storageTopic}
	const why = "; until then no refresh token is spent, for what comes of it could not be stored, and the access token that is held serves to its end"
	path := ""
	if e, ok := errors.AsType[*fs.PathError](f.Err); ok {
		path = e.Path
	}
	at := ""
	if path != "" {
		at = " at " + path
	}
	switch {
	case errors.Is(f.Err, fs.ErrPermission):
		a.Wrong += ": the right to its files" + at + " is missing"
		a.Do = "give the user that Caddy runs as (ps -o user= -C caddy) the right to read and write there: chown -R <user> <the storage's folder>"
	case errors.Is(f.Err, syscall.ENOSPC), errors.Is(f.Err, syscall.EDQUOT):
		a.Wrong += ": no room is left" + at
		a.Do = "make room: df -h, and df -i for the number of files"
	case errors.Is(f.Err, syscall.EROFS):
		a.Wrong += ": its file system" + at + " is read-only"
		a.Do = "write a folder that can be written in the global option storage file_system <folder>, or mount a volume there"
	case strings.Contains(f.Err.Error(), "what it held is gone"):
		a.Wrong += ": what it held is gone"
		a.Do = "put it back from a backup; or " + k.login() + "; or start Caddy anew to begin with the configured refresh token"
		return a
	default:
		a.Do = "look at the storage of Caddy (the global option storage; files in its data folder unless set): does it run, is it reached, is there room? The log's cause has its own words"
	}
	a.Do += why
	return a
}

// ofLostAnswer names what lost it, too, which is what can be mended.
func ofLostAnswer(f *oauth.Failure, k Facts) Advice {
	a := Advice{Wrong: token.ErrAnswerLost.Error(), Topic: loginRequired}
	a.Do = "the refresh token is tried again when the access token has ended; if the server then refuses it, " + k.login()
	if !f.Lost { // it is remembered, and was told then
		return a
	}
	cause, ok := ofNetwork(f, k)
	if !ok {
		cause = ofStatus(f, k)
	}
	a.Wrong += ": " + cause.Wrong
	a.Do += "; what lost it: " + cause.Do
	return a
}

// ofEngine is what was not asked of the server at all, or came too late from it.
// The words are those of internal/token.
func ofEngine(f *oauth.Failure, k Facts) (Advice, bool) {
	if f.Err == nil || f.Status != 0 {
		return Advice{}, false
	}
	const again = "it is tried again by itself"
	text := f.Err.Error()
	a := Advice{Wrong: text, Topic: unreachable}
	switch {
	case errors.Is(f.Err, token.ErrClosed):
		a.Do = "the credential was taken out of the config, or Caddy stops: nothing, or put it back"
	case strings.Contains(text, "had expired when it arrived"):
		a.Topic = shortLifetime
		a.Do = "tokens live shorter than a token request takes: have the server give them a longer life, or find out why it is slow; a token that is handed out again with little left of it is asked for anew after its end"
	case strings.Contains(text, "first answer is still awaited"):
		a.Do = "the server has not answered yet; if it stays so, it hangs: to try, " + k.reach()
	case strings.Contains(text, "another instance has the lock"):
		a.Topic = storageTopic
		a.Do = again + "; if it stays, an instance hangs with the lock in hand, or its clock is off: look at the others, and at the storage that they share"
	case strings.Contains(text, "was paused with the lock in hand"), strings.Contains(text, "earlier refresh is still under way"):
		a.Topic = storageTopic
		a.Do = again + "; if it comes often, this machine or container is starved or suspended: look at its limits of CPU and memory"
	default:
		return a, false
	}
	return a, true
}
