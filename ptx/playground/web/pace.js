// How long a text that streams past, and is followed, has no pictures of its own: they take both
// cores, which a fast text needs to be there, and nobody sees one of its middle.
ptx.pace = (() => {
  const { state, on } = ptx.store;
  const KNOWN = 400; // ms of a text, after which it is known how fast it comes
  const FAST = 60; // tokens by then: more nobody follows
  const FIRST = 1000; // ms that such a text, which may have ended by then, goes without
  let began = 0;

  on(["writing"], () => {
    if (state.writing) began = performance.now();
  });

  // Milliseconds; 0 if now is the time.
  function wait() {
    if (!state.writing || !state.following) return 0;
    const age = performance.now() - began;
    if (age < KNOWN) return KNOWN - age;
    return state.status.generated > FAST ? Math.max(0, FIRST - age) : 0;
  }

  return { wait };
})();
