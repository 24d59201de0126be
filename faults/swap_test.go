package faults

import "time"

// swap replaces the file with the secret again and again, each time by a file
// of another length with the same secret in it.
func (c *cell) swap() {
	c.swaps.stop = make(chan struct{})
	stop := c.swaps.stop
	c.swaps.wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := "\n"; ; {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if err := c.write("secret", c.secret+end); err != nil {
				c.fail("swapping the secret: %v", err)
				return
			}
			end = map[string]string{"": "\n", "\n": "\r\n", "\r\n": ""}[end]
		}
	})
}

// stopSwapping ends it.
func (c *cell) stopSwapping() {
	if c.swaps.stop != nil {
		close(c.swaps.stop)
		c.swaps.wg.Wait()
		c.swaps.stop = nil
	}
}
