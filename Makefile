# Every command of the README is a target here; CI runs the same ones.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

MODULES := . example integration_test
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CURDIR)/.bin/golangci-lint-$(GOLANGCI_VERSION)
LICENCES_VERSION := v1.6.0
LICENCES := $(CURDIR)/.bin/go-licenses-$(LICENCES_VERSION)
FUZZTIME ?= 100000x
FUZZED := pgstore cleanup cmd migrations internal example
QUICK ?=
ARGS ?=
FAULT ?=

.PHONY: help demo build test test-servers faults lint tidy-check verify deps-check licences licences-check bench fuzz

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the demo app on a throwaway PostgreSQL (ARGS="-limit 1" for its flags)
	@mkdir -p bin && go build -o bin/example ./example && exec bin/example $(ARGS)

build: ## everything, in every module; programs go to bin/
	@mkdir -p bin
	@for m in $(MODULES); do echo "build $$m"; (cd $$m && go build ./...); done
	@go build -o bin/example ./example
	@CGO_ENABLED=0 go build -trimpath -o bin/sweeper ./cmd/sweeper

test: ## all tests, on one PostgreSQL, with the race detector
	@mkdir -p bin && go build -o bin/withpg ./integration_test/withpg
	@bin/withpg -- $(SHELL) $(.SHELLFLAGS) 'for m in $(MODULES); do echo "test $$m"; (cd $$m && go test -race -parallel 4 -timeout 30m ./...); done'

test-servers: ## the store's tests on PostgreSQL 15, 17 and 18, and through PgBouncer 1.18 and 1.24 (needs debootstrap)
	@.ci/test-servers

lint: $(GOLANGCI) ## gofmt, go vet and golangci-lint, changing nothing
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt would change:"; echo "$$bad"; exit 1; }
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && go vet ./... && $(GOLANGCI) run ./...); done

$(GOLANGCI):
	@echo "installing golangci-lint $(GOLANGCI_VERSION)"
	@mkdir -p .bin && GOBIN=$(CURDIR)/.bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	@mv .bin/golangci-lint $@

tidy-check: ## go.mod and go.sum say what the code needs
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy -diff); done

verify: ## the modules that were downloaded are those that go.sum names
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod verify); done

# What the root requires, every user's module inherits. Sealing takes x/crypto; the rest are the sweeper's.
WANTED := github.com/alexedwards/scs/v2 github.com/jackc/pgx/v5 github.com/pressly/goose/v3 \
	github.com/schollz/progressbar/v3 golang.org/x/crypto golang.org/x/term

deps-check: ## the root module stays lean, and nothing comes along behind the walls that make lint keeps
	@go mod edit -json | python3 -c 'import json, sys; \
	bad = [r["Path"] for r in json.load(sys.stdin)["Require"] if not r.get("Indirect") and r["Path"] not in sys.argv[1:]]; \
	sys.exit("not wanted in the root go.mod: " + ", ".join(bad) if bad else 0)' $(WANTED)
	@behind() { deps=$$(go list -deps "./$$1"); if grep -E "$$2" <<<"$$deps"; then echo "$$1 depends on what it should not"; exit 1; fi; }; \
	behind pgstore 'pressly/goose|progressbar|x/term'; \
	behind cleanup 'pressly/goose|progressbar|x/term|alexedwards/scs'; \
	behind pgstore/internal/frame 'jackc/pgx|alexedwards/scs|^net/http$$'; \
	behind pgstore/internal/rules 'pgx/v5/pgxpool|alexedwards/scs|^net/http$$'; \
	behind pgstore/internal/db 'alexedwards/scs|^net/http$$'

licences: $(LICENCES) ## docs/licences.md anew: the licence of each dependency
	@text=$$(.ci/licences $(LICENCES)) && echo "$$text" >docs/licences.md

licences-check: $(LICENCES) ## docs/licences.md is up to date, and each licence is one that we have agreed to
	@text=$$(.ci/licences $(LICENCES)) && diff -u docs/licences.md - <<<"$$text"

$(LICENCES):
	@echo "installing go-licenses $(LICENCES_VERSION)"
	@mkdir -p .bin && GOBIN=$(CURDIR)/.bin go install github.com/google/go-licenses@$(LICENCES_VERSION)
	@mv .bin/go-licenses $@

bench: ## ours beside pgxstore, postgresstore, Redis and memory, as Markdown tables and plots (QUICK=1: a minute)
	@mkdir -p bin && go build -o bin/bench ./integration_test/bench && exec bin/bench $(if $(QUICK),-quick -plots bin,-plots docs) $(ARGS)

faults: ## what breaks under the store, and what its users see then; Linux, best as root (FAULT=name: that one alone)
	@mkdir -p bin && (cd integration_test && go test -c -o ../bin/faults ./faults) && cd integration_test/faults && \
		exec ../../bin/faults -faults -test.timeout 20m -test.run 'TestFaults$(if $(FAULT),/^$(FAULT)$$)' $(ARGS)

# So many inputs, not seconds: where the time is up while an input runs, go test takes that for a failure.
# Those that need a server, which all share, get a tenth.
fuzz: ## every fuzz target for FUZZTIME inputs
	@mkdir -p bin && go build -o bin/withpg ./integration_test/withpg
	@bin/withpg -- $(SHELL) $(.SHELLFLAGS) 'for f in $$(grep -rHo --include="*_test.go" "func Fuzz[A-Za-z]*" $(FUZZED) | sed "s,:func ,:,"); do \
		file=$${f%%:*}; n=$(FUZZTIME); if grep -qE "pgtest|servePostgres" "$$file"; then n=$$((($${n%x} + 9) / 10))x; fi; \
		go test -run "^$$" -fuzz "^$${f#*:}$$" -fuzztime "$$n" "./$${file%/*}"; \
	done'
