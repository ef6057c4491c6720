package db

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestTurnsComeOneAtATimeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Turns
		leave, err := q.Enter(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		for i := range 5 {
			go func() {
				leave, err := q.Enter(t.Context(), "alice")
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // the queue is the lock: -race tells
				leave()
			}()
			synctest.Wait()
		}
		if len(order) != 0 {
			t.Fatalf("%d got in while the turn was taken", len(order))
		}
		leave()
		synctest.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("order %v, want first come, first served", order)
			}
		}
		if len(order) != 5 || len(q.users) != 0 {
			t.Fatalf("%d of 5 got in, %d queues left behind", len(order), len(q.users))
		}
	})
}

func TestTurnsOfOtherUsersDoNotWait(t *testing.T) {
	var q Turns
	leaveAlice, err := q.Enter(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	defer leaveAlice()
	leaveBob, err := q.Enter(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	leaveBob()
}

func TestTurnsGiveUpWithTheContext(t *testing.T) {
	var q Turns
	leave, err := q.Enter(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Enter(ctx, "alice"); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want context.Canceled", err)
	}
	leave()
	if len(q.users) != 0 {
		t.Fatalf("%d queues left behind", len(q.users))
	}
}
