//! Terminal sessions: what people and programs see of `countersign` and `countersign-relay`, with exact output. Every party is a process of its
//! own; where a person types, there is a real terminal. What goes over the wire is deliberately not here.

mod always;
mod approve;
mod audit;
mod demo;
mod errors;
mod hear;
mod help;
mod http;
mod json;
mod pipes;
mod run;
mod screen;
mod several;
mod site;
mod tempting;
mod tutorial;
mod warnings;
mod watch;
