/* The editor of a live cell: CodeMirror 6 with what a short Python cell needs, and no more.
   tools/live.py bundles it; book/assets/live.js loads it when a reader first edits. */
/*! With CodeMirror 6 and Lezer: MIT License, Copyright (C) 2018-2021 by Marijn Haverbeke
    <marijn@haverbeke.berlin> and others. */

import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { python } from "@codemirror/lang-python";
import { bracketMatching, indentOnInput, indentUnit, syntaxHighlighting } from "@codemirror/language";
import { EditorState } from "@codemirror/state";
import { EditorView, drawSelection, keymap } from "@codemirror/view";
import { tagHighlighter, tags } from "@lezer/highlight";

// The classes of Pygments, whose style sheet the page has: code keeps its colors.
const pygments = tagHighlighter([
  { tag: tags.keyword, class: "k" },
  { tag: tags.operatorKeyword, class: "ow" },
  { tag: tags.moduleKeyword, class: "kn" },
  { tag: [tags.bool, tags.null], class: "kc" },
  { tag: tags.comment, class: "c1" },
  { tag: tags.string, class: "s2" },
  { tag: tags.escape, class: "se" },
  { tag: tags.number, class: "mi" },
  { tag: tags.operator, class: "o" },
  { tag: tags.punctuation, class: "p" },
  { tag: tags.variableName, class: "n" },
  { tag: tags.propertyName, class: "n" },
  { tag: tags.function(tags.definition(tags.variableName)), class: "nf" },
  { tag: tags.definition(tags.className), class: "nc" },
  { tag: tags.meta, class: "nd" },
]);

/**
 * An editor after an element.
 *
 * label: its name for screen readers. run: called on Shift+Enter and Ctrl+Enter. change: called
 * with the text after each change. close: called on Escape. Tab goes on to the next control;
 * Ctrl+] and Ctrl+[ indent.
 */
export function createEditor({ place, text, label, run, change, close }) {
  const act = (action) => () => {
    action();
    return true;
  };
  const view = new EditorView({
    doc: text,
    extensions: [
      keymap.of([
        { key: "Shift-Enter", run: act(run) },
        { key: "Mod-Enter", run: act(run) },
        { key: "Escape", run: act(close) },
        ...defaultKeymap,
        ...historyKeymap,
      ]),
      history(),
      drawSelection(),
      bracketMatching(),
      indentOnInput(),
      indentUnit.of("    "),
      EditorState.tabSize.of(4),
      python(),
      syntaxHighlighting(pygments),
      EditorView.contentAttributes.of({ "aria-label": label }),
      EditorView.updateListener.of((update) => {
        if (update.docChanged) change(update.state.doc.toString());
      }),
    ],
  });
  // The theme takes some keys for itself, such as / for its search.
  view.dom.addEventListener("keydown", (event) => event.stopPropagation());
  place.after(view.dom);
  return {
    focus: () => view.focus(),
    replace: (code) =>
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: code } }),
    remove: () => view.destroy(),
  };
}
