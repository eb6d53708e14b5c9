// How long a text that streams past, and is followed, has no pictures of its own: they take both
// cores, which a fast text needs to be there, and nobody sees one of its middle.
ptx.pace = (() => {
  const { state, on } = ptx.store;
  const KNOWN = 400; // ms from its first token on, after which it is known how fast a text comes
  const FAST = 60; // tokens in that time: more nobody follows
  const FIRST = 1000; // ms that such a text, which may have ended by then, goes without
  let phase = null; // of the text being written: "asked", or "written" from its first token on
  let began = 0; // when that began

  on(["writing", "status"], ({ writing, status }) => {
    const now = !writing ? null : status.generated ? "written" : "asked";
    if (now && now !== phase) began = performance.now();
    phase = now;
  });

  // Milliseconds; 0 if now is the time.
  function wait() {
    if (!state.writing || !state.following) return 0;
    const age = performance.now() - began;
    if (age < KNOWN) return KNOWN - age;
    return state.status.generated * KNOWN > FAST * age ? Math.max(0, FIRST - age) : 0;
  }

  return { wait };
})();
