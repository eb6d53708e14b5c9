// Gradio's loading sign asks for every frame of the screen, and goes on asking once it is gone, so that
// a page on which nothing moves takes a twentieth of a core for ever. Requests are numbered in their
// order: where for a second exactly one other comes between two of ours, it is that one.
(() => {
  const CERTAIN = 60; // frames
  const MOST = 1800; // then something else moves all the time, and the sign does not matter
  let frames = 0;
  let alike = 0; // of the last frames, how many had one request that is not ours
  let before = 0; // the number of our last request

  function look() {
    const mine = requestAnimationFrame(look);
    frames += 1;
    alike = mine - before === 2 ? alike + 1 : 0;
    before = mine;
    if (alike === CERTAIN) cancelAnimationFrame(mine - 1);
    if (alike === CERTAIN || frames === MOST) cancelAnimationFrame(mine);
  }
  requestAnimationFrame(look);
})();
