// Node.js wants the extension in the path of an import.
export default {
  input: "openapi.json",
  output: { path: "hey", module: { extension: ".js" } },
};
