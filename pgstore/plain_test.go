package pgstore_test

import "testing"

// Without Track, the store guesses which of its calls belong to one request.
func TestPlainStoreGuessesRequests(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, newAppFunc){
		"iterateFromARequestSignsNobodyIn":              iterateFromARequestSignsNobodyIn,
		"requestsOfOneConnectionAreToldApart":           requestsOfOneConnectionAreToldApart,
		"requestsOfOneHTTP2ConnectionAreToldApart":      requestsOfOneHTTP2ConnectionAreToldApart,
		"revokeStopsARenewalOnTheSameHTTP2Connection":   revokeStopsARenewalOnTheSameHTTP2Connection,
		"listingFollowsTheSession":                      listingFollowsTheSession,
		"renewalKeepsTheAgeBesideAnotherSignIn":         renewalKeepsTheAgeBesideAnotherSignIn,
		"revokeStopsAPendingRenewal":                    revokeStopsAPendingRenewal,
		"revokeAllStopsARenewalUnderAnotherContext":     revokeAllStopsARenewalUnderAnotherContext,
		"revokeAllStopsARenewalAfterTheClientHasGone":   revokeAllStopsARenewalAfterTheClientHasGone,
		"refusedSignInStoresNothingOfTheRevokedSession": refusedSignInStoresNothingOfTheRevokedSession,
		"revokeAllExemptsItsOwnRequest":                 revokeAllExemptsItsOwnRequest,
		"signInMayFollowARevocationOfItsOwnSession":     signInMayFollowARevocationOfItsOwnSession,
		"revokeAllStopsAPendingRenewal":                 revokeAllStopsAPendingRenewal,
		"endedSessionStaysEnded, renewing":              func(t *testing.T, newApp newAppFunc) { endedSessionStaysEnded(t, newApp, "renew") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newPlainApp)
		})
	}
}
