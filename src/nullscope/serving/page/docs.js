"use strict";
// The routes of /openapi.json as text: nothing is fetched from elsewhere.

const made = (name, text) => Object.assign(document.createElement(name), {textContent: text});

fetch("/openapi.json").then(answer => answer.json()).then(({paths}) => {
  const routes = document.getElementById("routes");
  for (const [path, methods] of Object.entries(paths))
    for (const [method, route] of Object.entries(methods)) {
      const list = document.createElement("ul");
      for (const one of route.parameters ?? []) list.append(made("li", `${one.in}: ${one.name}${one.required ? " (required)" : ""}`));
      for (const kind of Object.keys(route.requestBody?.content ?? {})) list.append(made("li", `body: ${kind}, files in the field "files"`));
      for (const [status, answer] of Object.entries(route.responses)) list.append(made("li", `${status}: ${answer.description}`));
      routes.append(made("h2", `${method.toUpperCase()} ${path}`), made("p", route.description ?? route.summary), list);
    }
});
