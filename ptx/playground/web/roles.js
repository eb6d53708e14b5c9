// The roles of heads, see ptx/lens/roles.py: a name short enough for a small picture, and what such
// a head does.
ptx.roles = {
  "previous token": ["previous", "looks at the token just before"],
  self: ["self", "looks at the token it stands on"],
  "duplicate token": ["duplicate", "looks at earlier copies of the token it stands on"],
  induction: ["induction", "copies what came after the last time: finds the same token earlier and looks at the one that followed it"],
  "matching bracket": ["bracket", "looks from a closing bracket to the one that it closes"],
  "same identifier": ["same name", "looks from a name to earlier uses of it"],
  definition: ["definition", "looks from a name to where it was defined or assigned"],
  "line start": ["line start", "looks at how the line began"],
  indentation: ["indent", "looks from a new line to earlier lines of the same depth"],
  "string or comment": ["string", "looks from inside a string or comment to where it began"],
  "first-token sink": ["sink", "rests on the first token: there is nothing for it to do here"],
  "": ["", "no role stands out"],
};
